"""Why grants are there that a run does not need: a list with a reason for each, held against what was not needed."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from app.errors import StockflowError
from embedded.aws.iam.patterns import compiled


class BadJustifications(StockflowError):
    """The list of justifications is not one."""

    exit_code = 10


@dataclass(frozen=True)
class Justification:
    """Why roles have grants that are not needed. role, action: patterns with ``*`` and ``?``."""

    role: str
    action: str
    reason: str

    def covers(self, grant: Mapping[str, Any]) -> bool:
        """Whether it is about a grant of a report of `embedded.aws.iam.record`."""
        return (
            compiled(self.role).fullmatch(grant["role"]) is not None
            and compiled(self.action, ignore_case=True).fullmatch(grant["action"]) is not None
        )


class Judgement(NamedTuple):
    """justified: with the reason of each; unjustified: the rest; needless: justifications that are about no grant."""

    justified: list[dict[str, Any]]
    unjustified: list[dict[str, Any]]
    needless: list[Justification]


def read_justifications(path: Path) -> list[Justification]:
    """A TOML file of `[[justified]]` tables, each with role, action and reason."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))["justified"]
        found = [Justification(**table) for table in tables]
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as exc:
        raise BadJustifications(
            f"{path} must have [[justified]] tables with role, action and reason, and nothing else: {exc}"
        ) from exc
    if nameless := [one for one in found if not one.reason.strip()]:
        raise BadJustifications(f"{path}: {nameless[0].role} {nameless[0].action} gives no reason")
    return found


def judge(unused: Iterable[Mapping[str, Any]], justifications: Iterable[Justification]) -> Judgement:
    """Hold unused grants against the list; a grant has the reason of the first that covers it."""
    listed = list(justifications)
    judgement = Judgement([], [], [])
    covering: set[Justification] = set()
    for grant in unused:
        found = [one for one in listed if one.covers(grant)]
        covering.update(found)
        if found:
            judgement.justified.append({**grant, "reason": found[0].reason})
        else:
            judgement.unjustified.append(dict(grant))
    judgement.needless.extend(one for one in listed if one not in covering)
    return judgement
