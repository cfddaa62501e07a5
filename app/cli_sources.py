"""Where the reading commands read: the buckets of the environment, a stack that is up, or the folder of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app import contract
from app.errors import SettingsError

if TYPE_CHECKING:
    from app.storage import Bucket

UP, RUN = Path("build/up"), Path("build/run")
"""Where `stockflow up` and `stockflow run` leave what they leave, unless they are told otherwise."""
_VARIABLES: Final = {
    "market": contract.ENV_MARKET_BUCKET,
    "model": contract.ENV_MODEL_BUCKET,
    "predictions": contract.ENV_PREDICTIONS_BUCKET,
}


@dataclass(frozen=True)
class Sources:
    """bucket: opens the one of a role: market, model, predictions. place, to_fill: where it is, what fills it."""

    bucket: Callable[[str], Bucket]
    place: str
    to_fill: str


def find_sources(folder: Path | None, environ: Mapping[str, str]) -> Sources:
    """What `folder` holds; without one the buckets that the environment names, then what is up, then the last run.

    Raises SettingsError when there is none of them, or the folder is nothing of the kind.
    """
    if folder is not None:
        if found := _stack_in(folder) or _run_in(folder):
            return found
        raise SettingsError(
            f"--from {folder}: nothing is up there, and it is no folder that `stockflow run` left: name another one"
        )
    if any(environ.get(name) for name in _VARIABLES.values()):
        return Sources(
            lambda role: _of_environ(role, environ),
            "the environment's buckets",
            "run the phases (`stockflow start --follow` where a stack is up), or check their names",
        )
    if found := _stack_in(UP) or _run_in(RUN):
        return found
    raise SettingsError(
        "there is nothing to read yet: type `make run`, or `stockflow up`, or set"
        f" {', '.join(_VARIABLES.values())}; --from names the folder of a run or of a stack that is up"
    )


def _of_environ(role: str, environ: Mapping[str, str]) -> Bucket:
    from app.consumer.source import open_bucket

    if name := environ.get(_VARIABLES[role]):
        return open_bucket(name)
    raise SettingsError(f"set {_VARIABLES[role]}, as the other buckets are named in the environment")


def _stack_in(folder: Path) -> Sources | None:
    """The stack that is up in a folder."""
    if not (folder / ".lock").exists():
        return None
    from embedded.daemon import NotUp, attach

    try:
        local = attach(folder)
    except NotUp:
        return None
    return Sources(local.buckets().__getitem__, f"the stack that is up in {folder}", "type `stockflow start --follow`")


def _run_in(folder: Path) -> Sources | None:
    """The run that left its results in a folder."""
    from app.consumer.source import RUN_SUMMARY, RunFolder

    if not (folder / RUN_SUMMARY).is_file():
        return None
    results = RunFolder(folder)
    return Sources(lambda role: results, f"{folder} ({results.run_id})", "type `make run`")
