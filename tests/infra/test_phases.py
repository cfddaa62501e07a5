"""The phases that people see are made of the states that the machine has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from embedded.phases import PHASE_STATES, phase_of
from tests.infra.synthesised import VARIATIONS, Synthesised

OF_THE_MACHINE = {"ValidateInput", "Release", "Notify"}


def all_states(definition: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, state in definition["States"].items():
        yield name, state
        for branch in state.get("Branches", ()):
            yield from all_states(branch)


def test_each_task_belongs_to_a_phase_and_each_state_of_a_phase_is_there(
    variation: Callable[[str], Synthesised],
) -> None:
    states = [pair for name in VARIATIONS for pair in all_states(variation(name).definition)]
    tasks = {name for name, state in states if state["Type"] == "Task"}
    assert {name for name in tasks if phase_of(name) is None} == OF_THE_MACHINE
    assert {name for names in PHASE_STATES.values() for name in names} <= {name for name, _ in states}
