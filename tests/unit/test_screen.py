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


def tell(screen: Screen, shard: int, done: int, note: str = "tickers") -> None:
    screen.said(f"IngestShards {shard}", f'{{"phase": "ingest", "done": {done}, "total": 9, "note": "{note}"}}')


def told(screen: Screen) -> list[object]:
    return list(screen.table(shards()).columns[4].cells)


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
    assert told(screen) == ["14/18 tickers, 1/2 shards done", "shard 0: 5/9", "shard 1: 9/9"]


def test_how_tickers_ended_is_summed_over_the_shards_and_those_without_all_bars_are_named() -> None:
    screen = Screen()
    screen.said("IngestShards 0", "ingest: ABC partial: 2025-12-01 lacks 290 of 390 minutes (100-389)")
    tell(screen, 0, 5, "tickers: 4 complete, 1 partial")
    screen.said("IngestShards 1", "ingest: XYZ failed: [/] no answer")
    tell(screen, 1, 3, "tickers: 2 complete, 1 failed")
    assert told(screen) == [
        "8/18 tickers: 6 complete, 1 partial, 1 failed, 0/2 shards done", "shard 0: 5/9", "shard 1: 3/9",
        r"XYZ failed: \[/] no answer", "ABC partial: 2025-12-01 lacks 290 of 390 minutes (100-389)",
    ]  # fmt: skip


def test_a_shard_that_is_tried_again_starts_without_its_failures() -> None:
    screen = Screen()
    tell(screen, 0, 0)
    screen.said("IngestShards 0", "ingest: XYZ failed: no answer")
    tell(screen, 0, 9, "tickers: 8 complete, 1 failed")
    tell(screen, 0, 8, "tickers: 8 complete")
    assert told(screen) == ["8/9 tickers: 8 complete, 0/2 shards done", "shard 0: 8/9"]


def test_only_the_worst_are_named_where_there_are_many() -> None:
    screen = Screen()
    for number in range(12):
        screen.said("IngestShards 0", f"ingest: T{number:02d} {'failed' if number > 9 else 'partial'}: why")
    lines = told(screen)
    assert lines[1:3] == ["T10 failed: why", "T11 failed: why"]
    assert lines[-1] == "4 more"
    assert len(lines) == 1 + 8 + 1


def test_a_ticker_that_is_not_complete_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen() as screen:
        screen.said("IngestShards 0", "ingest: NO delisted: No data found, symbol may be delisted")
        screen.show(shards())
        screen.show(shards())
    assert capsys.readouterr().out.splitlines()[:2] == [
        "IngestShards: started",
        "  IngestShards: NO delisted: No data found, symbol may be delisted",
    ]


def test_a_terminal_keeps_the_last_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with Screen() as screen:
        screen.show(shards())
        screen.show(shards(status="SUCCEEDED"))
    last = capsys.readouterr().out.rpartition("name: ")[2]
    assert last.startswith("SUCCEEDED")
    assert "IngestShards" in last
