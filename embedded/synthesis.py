"""The cloud assembly that the embedded AWS deploys: what `cdk synth` writes, with a laptop's defaults, made once.

An assembly is kept under build/assemblies as long as nothing that it is made from has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from app.errors import StockflowError
from app.processes import last_error
from app.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
_KEPT = ROOT / "build" / "assemblies"
_MADE_FROM = ("app", "infra", "lambdas", "docker", "emr", "scripts")
"""Folders of the checkout that the CDK app or its assets read; and files:"""
_FILES = ("app.py", "cdk.json", "pyproject.toml", "uv.lock", ".dockerignore")
_BUILT = ROOT / "build" / "emr"
"""What `make emr` builds, if it did: too large to read, so its size and its time stand for it."""
_AT_MOST = 3
_RANKS = 2
"""MPI ranks of a training job, as many as a small laptop has cores."""
_SHARDS = 2
"""Where one worker would do, so that the ingest is an array job here as it is on AWS: Batch has none of one child."""


def assembly(tickers: Sequence[str], environ: Mapping[str, str]) -> Path:
    """The folder of an assembly whose executions take these tickers by default. It is not to be changed."""
    context = {
        "settings": machine_settings().model_dump(mode="json"),  # where cdk.json has a fleet's
        "universe": ",".join(tickers),
        "training.processes": _RANKS,
    }
    kept = _KEPT / _fingerprint(context)
    if not kept.is_dir():
        _KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_KEPT, prefix=".", ignore_cleanup_errors=True) as folder:
            fresh = Path(folder, "assembly")
            synthesise(fresh, context, environ)
            if not kept.is_dir():  # somebody else's is as good
                fresh.rename(kept)
    os.utime(kept)
    _forget_the_oldest()
    return kept


def machine_settings(asked: Settings | None = None) -> Settings:
    """The settings of the phases in a deployment on this machine, with those that were set in `asked` over them."""
    given = asked.model_dump(mode="json", exclude_unset=True) if asked else {}
    return Settings.model_validate({**given, "ingest": {"shards": _SHARDS, **given.get("ingest", {})}})


def synthesise(folder: Path, context: Mapping[str, object], environ: Mapping[str, str]) -> None:
    """Write an assembly as `cdk synth` does. context: over that of cdk.json."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", os.defpath)])  # node is there
    done = subprocess.run(
        [sys.executable, str(ROOT / "app.py")],
        env={**environ, "PATH": programs, "CDK_OUTDIR": str(folder), "CDK_CONTEXT_JSON": json.dumps(context)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StockflowError(f"the templates cannot be synthesised: {last_error(done.stderr.splitlines())}")


def _fingerprint(context: Mapping[str, object]) -> str:
    digest = hashlib.sha256(json.dumps(context, sort_keys=True).encode())
    for path in _sources():
        digest.update(f"{path.relative_to(ROOT)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for path in sorted(_BUILT.glob("*")):
        digest.update(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]


def _sources() -> Iterator[Path]:
    yield from (ROOT / name for name in _FILES if (ROOT / name).is_file())
    for folder in _MADE_FROM:
        yield from sorted(p for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts)


def _forget_the_oldest() -> None:
    kept = sorted((path for path in _KEPT.iterdir() if not path.name.startswith(".")), key=lambda p: p.stat().st_mtime)
    for path in kept[:-_AT_MOST]:
        shutil.rmtree(path, ignore_errors=True)
