"""docs/deploy.md against the code that it describes."""

from __future__ import annotations

import re

from app.workflow.order import PHASES
from infra.root import ROOT
from infra.settings import describe
from tests.infra.synthesised import Synthesised

TEXT = (ROOT / "docs" / "deploy.md").read_text()


def test_the_table_of_settings_is_that_of_the_model() -> None:
    table = re.findall(r"^\| `([a-z_.]+)` \| `(.+?)` \| (.+) \|$", TEXT.partition("## Every setting")[2], re.MULTILINE)
    assert table == describe()


def test_every_state_that_is_described_exists(default_app: Synthesised) -> None:
    rows = TEXT.partition("| state | what happens")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([A-Z][A-Za-z]+)`", "\n".join(row.split("|")[1] for row in rows.splitlines()[2:])))
    assert named <= default_app.states().keys()
    assert {"ValidateInput", "TrainModel", "ReleaseCluster"} <= named


def test_every_phase_is_described() -> None:
    assert all(f"`{phase}`" in TEXT for phase in PHASES)
