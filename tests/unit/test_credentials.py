"""Cookie and crumb as yfinance gets them, from a server on this machine; without any the ingest goes on."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.ingest import credentials as credentials_of_yahoo
from app.ingest.credentials import Credentials, obtain, prepare_yfinance
from app.ingest.yahoo_session import Elsewhere, YahooSession
from tests.yahoo_server import CRUMB_PATH, Answer, LocalYahoo, refusal


def session_to(yahoo: LocalYahoo) -> YahooSession:
    return YahooSession(Elsewhere.at(yahoo.url))


def cookies_of(credentials: Credentials) -> dict[str, str]:
    return {cookie.name: cookie.value for cookie in credentials.cookies}


def test_cookie_and_crumb_are_asked_for_once_at_yahoos_hosts(yahoo: LocalYahoo) -> None:
    credentials = obtain(session_to(yahoo), 5)
    assert credentials.crumb == "cr.umb"
    assert cookies_of(credentials) == {"A3": "d=stockflow"}
    assert [(asked.host, asked.path) for asked in yahoo.asked] == [
        ("fc.yahoo.com", "/"),
        ("query1.finance.yahoo.com", CRUMB_PATH),
    ]
    assert yahoo.asked[1].cookie == "A3=d=stockflow"


def test_what_was_obtained_is_kept(yahoo: LocalYahoo) -> None:
    session = session_to(yahoo)
    first = obtain(session, 5)
    assert obtain(session, 5).crumb == first.crumb
    assert len(yahoo.asked) == 2


def test_who_was_refused_gets_another_crumb_by_another_way(yahoo: LocalYahoo) -> None:
    crumbs = iter(["first", "second", "third"])
    yahoo.pages[CRUMB_PATH] = lambda asked: Answer(next(crumbs))
    session = session_to(yahoo)
    first = obtain(session, 5)
    second = obtain(session, 5, refused=first)
    assert (first.crumb, second.crumb) == ("first", "second")
    assert yahoo.counts["/consent"] == 1  # yfinance's other strategy
    assert yahoo.counts["/"] == 2  # in vain here: so a new cookie


def test_who_was_refused_without_any_crumb_gets_one(yahoo: LocalYahoo) -> None:
    assert obtain(session_to(yahoo), 5, refused=Credentials()).crumb == "cr.umb"


def test_credentials_that_another_one_has_renewed_meanwhile_are_taken_as_they_are(yahoo: LocalYahoo) -> None:
    session = session_to(yahoo)
    obtain(session, 5)
    assert obtain(session, 5, refused=Credentials("an older one")).crumb == "cr.umb"
    assert yahoo.counts[CRUMB_PATH] == 1


def test_of_many_threads_whose_crumb_was_refused_one_renews_it_and_the_others_take_what_it_got(
    yahoo: LocalYahoo,
) -> None:
    crumbs = iter(["first", "second", *(f"one too many, {i}" for i in range(8))])
    yahoo.pages[CRUMB_PATH] = lambda asked: Answer(next(crumbs))
    session = session_to(yahoo)
    first = obtain(session, 5)
    with ThreadPoolExecutor(8) as threads:
        renewed = list(threads.map(lambda _: obtain(session, 5, refused=first), range(8)))
    assert [credentials.crumb for credentials in renewed] == ["second"] * 8
    assert yahoo.counts[CRUMB_PATH] == 2


def test_only_one_thread_at_a_time_asks_yfinance(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, most = 0, 0

    def alone() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)
        inside -= 1
        raise InterruptedError

    monkeypatch.setattr(credentials_of_yahoo, "prepare_yfinance", alone)
    session = YahooSession(Elsewhere("http", 9, "127.0.0.1"))
    with ThreadPoolExecutor(8) as threads:
        asking = [threads.submit(obtain, session, 1) for _ in range(8)]
    assert {type(one.exception()) for one in asking} == {InterruptedError}  # which leaves the way free for the next
    assert most == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer("Too Many Requests\r\n", 429),
        Answer(refusal("Unauthorized", "Invalid Cookie", "finance"), 401),
        Answer("<html>no such page</html>", 404),
        Answer("<!DOCTYPE html><title>Sorry</title>", 503),
        Answer("Not Found", 404),
        Answer(""),
        Answer(ends="drop"),
    ],
    ids=["429", "401", "404", "503", "plain 404", "empty", "drop"],
)
def test_what_is_no_crumb_is_none_and_the_next_one_is_taken(yahoo: LocalYahoo, answer: Answer) -> None:
    well = yahoo.pages[CRUMB_PATH]
    yahoo.pages[CRUMB_PATH] = lambda asked: answer
    session = session_to(yahoo)
    without = obtain(session, 5)
    assert without.crumb is None
    yahoo.pages[CRUMB_PATH] = well
    assert obtain(session, 5, refused=without).crumb == "cr.umb"


@pytest.mark.parametrize(
    "page",
    [
        Answer(ends="drop"),
        Answer(ends="hang"),
        Answer("no cookie here", 404),
        Answer(headers={"Set-Cookie": "B=1; Domain=.yahoo.com; Path=/"}),
        Answer(headers={"Set-Cookie": "A3=d; Domain=.example.com; Path=/"}),
    ],
    ids=["drop", "hang", "404", "another cookie", "somebody else's cookie"],
)
def test_without_yahoos_cookie_there_may_be_a_crumb_and_never_an_error(yahoo: LocalYahoo, page: Answer) -> None:
    yahoo.pages["/"] = lambda asked: page
    assert obtain(session_to(yahoo), 0.3).crumb in {"cr.umb", None}


def test_without_any_server_there_are_no_credentials_and_no_error() -> None:
    prepare_yfinance()
    assert obtain(YahooSession(Elsewhere("http", 9, "127.0.0.1")), 1) == Credentials()


def test_yfinance_keeps_its_caches_in_a_folder_of_this_process_and_raises_what_it_would_hide() -> None:
    in_a_process_of_its_own = """
from pathlib import Path
from app.ingest.credentials import prepare_yfinance
prepare_yfinance()
import yfinance
from yfinance.cache import _CookieDBManager, _TzDBManager
folder = Path(_TzDBManager.get_location())
assert folder.name.startswith("stockflow-yfinance-")
assert folder == Path(_CookieDBManager.get_location())
assert not yfinance.config.debug.hide_exceptions
prepare_yfinance()
assert Path(_TzDBManager.get_location()) == folder
"""
    subprocess.run([sys.executable, "-c", in_a_process_of_its_own], check=True)
