"""What the person who waits sees of an execution, line by line and as a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from embedded.execution import Execution, StateRun
from embedded.screen import Screen

START = datetime(2026, 3, 16, 20, 0, tzinfo=UTC)


def shards(*ended: StateRun, status: str = "RUNNING") -> Execution:
    state = StateRun("IngestShards", START, parameters={"ArrayProperties": {"Size": 2}})
    return Execution("arn", "name", status, START, None, (*ended, state))


def tell(screen: Screen, shard: int, done: int) -> None:
    screen.said(f"IngestShards {shard}", f'{{"phase": "ingest", "done": {done}, "total": 9, "note": "tickers"}}')


def test_a_state_is_told_to_have_started_before_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen() as screen:
        tell(screen, 0, 5)
        plan = StateRun("PlanShards", START - timedelta(seconds=3))
        plan.end("failed", START - timedelta(seconds=1))
        screen.show(shards(plan))
    assert capsys.readouterr().out.splitlines() == [
        "PlanShards: started",
        "PlanShards: failed after 2.0 s",
        "IngestShards: started",
        "  IngestShards: 5/9 tickers, 0/2 shards done",
    ]


def test_the_table_has_a_line_for_each_shard() -> None:
    screen = Screen()
    tell(screen, 0, 5)
    tell(screen, 1, 9)
    assert list(screen.table(shards()).columns[4].cells) == [
        "14/18 tickers, 1/2 shards done", "shard 0: 5/9", "shard 1: 9/9"
    ]  # fmt: skip


def test_a_terminal_keeps_the_last_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with Screen() as screen:
        screen.show(shards())
        screen.show(shards(status="SUCCEEDED"))
    last = capsys.readouterr().out.rpartition("name: ")[2]
    assert last.startswith("SUCCEEDED")
    assert "IngestShards" in last
