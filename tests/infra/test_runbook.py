"""docs/runbook.md against the alarms and the states that it is about."""

from __future__ import annotations

import re

from infra.root import ROOT
from tests.infra.synthesised import Synthesised
from tests.infra.templates import resources

TEXT = (ROOT / "docs" / "runbook.md").read_text()
CAN_FAIL = ("Task", "Parallel", "Fail")


def sections(heading: str) -> dict[str, str]:
    """The sections below a heading of the second level, by their headings."""
    found = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^### (\w+)\n\n(.*?)(?=\n### |\Z)", found, re.MULTILINE | re.DOTALL))


def test_every_alarm_has_a_section_that_says_what_it_means_and_what_to_do(default_app: Synthesised) -> None:
    alarms = resources(default_app.compute, "AWS::CloudWatch::Alarm")
    named = {re.sub(r"^Observability|[0-9A-F]{8}$", "", logical_id) for logical_id in alarms}
    told = sections("Alarms")
    assert set(told) == named
    for alarm, text in told.items():
        assert re.findall(r"^- \*\*([\w ]+)\*\*: .", text, re.MULTILINE) == ["Means", "Look at", "Do"], alarm


def test_every_state_that_can_fail_has_a_section(any_app: Synthesised, default_app: Synthesised) -> None:
    told = set(sections("Failed states"))
    one_shard, the_whole = "IngestShard", "Run"  # told with those of several shards; what Run fails with is its states'
    assert any_app.states(*CAN_FAIL).keys() - {one_shard, the_whole} <= told
    assert told == default_app.states(*CAN_FAIL).keys() - {one_shard, the_whole}
    assert f"`{one_shard}`" in TEXT
