"""A Kinesis stream of ticks: its name is a setting, and nothing of it is made by the stacks."""

from __future__ import annotations

from pathlib import Path

from tests.infra.deployed import ACCOUNT, REGION
from tests.infra.permissions import allowed, arn_forms, who_may
from tests.infra.synthesised import Synthesised
from tests.infra.test_permissions import FEED, NODES

STREAM = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/ticks"


def test_a_named_stream_is_read_by_the_cluster_and_written_by_the_feed(tmp_path: Path) -> None:
    app = Synthesised({"settings.serving.kinesis_stream": "ticks"}, tmp_path)
    granted = {
        (permission.role, action, resource)
        for permission, action, resource in allowed(app.permissions)
        if action.startswith("kinesis:")
    }
    reads = {f"kinesis:{name}" for name in ("ListShards", "GetShardIterator", "GetRecords")}
    assert granted == {*((NODES, action, STREAM) for action in reads), (FEED, "kinesis:PutRecords", STREAM)}
    assert all(arn_forms(action) for _, action, _ in granted)
    assert who_may(app.permissions, "kinesis:GetRecords", f"{STREAM}-2") == set()


def test_without_one_nobody_may_touch_any(default_app: Synthesised) -> None:
    assert [action for _, action, _ in allowed(default_app.permissions) if action.startswith("kinesis:")] == []
