"""What a sweep is asked for, and the settings of each of its cases."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from app.errors import SettingsError
from app.options import counts
from app.scaling.cases import Case, make_cases
from app.settings import Settings, load

_INSTANCE = re.compile(r"(\d+)=(ml\.[a-z0-9-]+\.[a-z0-9]+)")
_G4DN_4 = "ml.g4dn.12xlarge"
INSTANCES: Mapping[int, str] = MappingProxyType({1: "ml.g4dn.xlarge", 2: _G4DN_4, 3: _G4DN_4, 4: _G4DN_4})
"""SageMaker's training instance by the GPUs that are used of it; each of them is a T4."""


@dataclass(frozen=True)
class Sweep:
    """The cases of one sweep and how they are run.

    name: of the sweep, the beginning of its runs' names. flags: `group.name=value` settings of all cases. epochs: of
    each case; the first one holds the compilation and is not timed where there are more. dataset_run: the run to train
    on; empty is the last dataset built. deployment, machine: which state machine starts the jobs; at_once: how many.
    instances: types by GPUs of a node.
    """

    name: str
    cases: Sequence[Case]
    out: Path
    epochs: int = 3
    flags: tuple[str, ...] = ()
    dataset_run: str = ""
    deployment: str = "stockflow"
    machine: str = ""
    at_once: int = 1
    instances: Mapping[int, str] = field(default_factory=lambda: INSTANCES)

    def settings(self, case: Case) -> Settings:
        """Complete settings of a case; SettingsError for what is out of bounds."""
        own = {"ranks": case.ranks, "batch": case.batch, "epochs": self.epochs, "seed": self.seed(case)}
        return load({}, [*self.flags, *(f"training.{name}={value}" for name, value in own.items())])

    def overrides(self, case: Case) -> dict[str, Any]:
        """The changed settings of a case, as an execution takes them: it counts the ranks itself."""
        found: dict[str, Any] = self.settings(case).model_dump(mode="json", exclude_unset=True)
        del found["training"]["ranks"]
        return found

    def seed(self, case: Case) -> int:
        """Another one for each case of each sweep: a seed is part of a model's id, and a model that is there already
        would go on from its checkpoint instead of training.
        """
        return zlib.crc32(f"{self.name} {case.name}".encode()) >> 2

    def run_id(self, case: Case) -> str:
        """The name of a case's run."""
        return f"{self.name}-{case.name}"

    def instance_type(self, case: Case) -> str:
        """SageMaker's instance type of a case."""
        return self.instances[case.gpus]


def read_cases(nodes: str, gpus: str, batch: str) -> list[Case]:
    """The cases of three lists of numbers by commas."""
    lists = {"nodes": counts(nodes, "nodes"), "gpus": counts(gpus, "gpus"), "batch": counts(batch, "batch")}
    for name, found in lists.items():
        if not found or found[0] < 1:
            raise SettingsError(f"{name} must name numbers from 1, such as 1,2,4")
    return make_cases(*lists.values())


def read_instances(texts: Iterable[str], cases: Iterable[Case]) -> dict[int, str]:
    """INSTANCES with what ``GPUS=TYPE`` texts change; SettingsError where a case is left without a type."""
    found = dict(INSTANCES)
    for text in texts:
        parts = _INSTANCE.fullmatch(text)
        if not parts:
            raise SettingsError(f"--instance {text!r} is not of the form GPUS=TYPE, such as 2=ml.g5.12xlarge")
        found[int(parts[1])] = parts[2]
    if missing := sorted({case.gpus for case in cases} - found.keys()):
        raise SettingsError(
            f"no instance type is known for {missing[0]} GPUs a node: name one with --instance {missing[0]}=TYPE"
        )
    return found
