"""Progress in the three forms: JSON lines, one live line, a plain line now and then."""

from __future__ import annotations

import json

import pytest

from app.ingest.run import Tally
from app.progress import Mode, choose_mode, reporter, teller


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


@pytest.mark.parametrize("mode", ["plain", "json"])
def test_what_is_said_for_good_is_a_line_of_its_own(capsys: pytest.CaptureFixture[str], mode: Mode) -> None:
    teller("ingest", mode)("NOPE delisted: no data")
    assert capsys.readouterr().out == "ingest: NOPE delisted: no data\n"


def test_what_is_said_for_good_wipes_the_live_line_and_leaves_it_to_be_written_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report, say = reporter("ingest", "live"), teller("ingest", "live")
    report(1, 2, "tickers: 1 complete")
    say("NOPE delisted")
    report(2, 2, "tickers")
    wiped = f"{'ingest: NOPE delisted':<100}"
    assert capsys.readouterr().out == f"\ringest: 1/2 tickers: 1 complete\r{wiped}\n\ringest: 2/2 tickers            \n"


def test_an_ingest_tells_how_each_ticker_ended_and_says_what_there_is_to_say() -> None:
    told, said = list[str](), list[str]()
    tally = Tally(4, lambda done, total, note: told.append(f"{done}/{total} {note}"), said.append)
    for status, sentence in (("complete", ""), ("failed", "B failed: 429"), ("partial", "C partial"), ("complete", "")):
        tally.count(status, sentence)
    assert told == [
        "0/4 tickers",
        "1/4 tickers: 1 complete",
        "2/4 tickers: 1 complete, 1 failed",
        "3/4 tickers: 1 complete, 1 partial, 1 failed",
        "4/4 tickers: 2 complete, 1 partial, 1 failed",
    ]
    assert said == ["B failed: 429", "C partial"]
