"""Progress in the three forms: JSON lines, one live line, a plain line now and then."""

from __future__ import annotations

import json

import pytest

from app.progress import choose_mode, reporter


def test_json_progress_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    report = reporter("train", "json")
    report(0, 2, "epochs")
    report(2, 2, 'said "done"')
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"phase": "train", "done": 0, "total": 2, "note": "epochs"},
        {"phase": "train", "done": 2, "total": 2, "note": 'said "done"'},
    ]


def test_plain_progress_says_the_first_and_the_last_and_little_between(capsys: pytest.CaptureFixture[str]) -> None:
    report = reporter("ingest", "plain")
    for done in range(101):
        report(done, 100, "tickers")
    assert capsys.readouterr().out.splitlines() == ["ingest: 0/100 tickers", "ingest: 100/100 tickers"]


def test_live_progress_wipes_a_longer_line_and_ends_it_when_done(capsys: pytest.CaptureFixture[str]) -> None:
    report = reporter("x", "live")
    report(0, 1, "long note")
    report(1, 1, "ok")
    assert capsys.readouterr().out == "\rx: 0/1 long note\rx: 1/1 ok       \n"


@pytest.mark.usefixtures("capsys")  # no terminal, whatever pytest itself writes to
def test_what_is_not_a_terminal_gets_plain_lines_unless_json_is_asked_for() -> None:
    assert choose_mode("json") == "json"
    assert choose_mode(None) == choose_mode("yes") == "plain"
