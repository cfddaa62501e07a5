"""The session of yfinance: where its requests go, what it notes, and how long an answer asks to wait."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from curl_cffi import CurlOpt, requests
from hypothesis import given
from hypothesis import strategies as st

from app.errors import SettingsError
from app.ingest import yahoo_session
from app.ingest.yahoo_session import CHART_PATH, Elsewhere, YahooSession, retry_after_s

CHART = f"https://query2.finance.yahoo.com{CHART_PATH}AAPL"
DATE = "Fri, 28 Nov 2025 18:00:00 GMT"


# --- elsewhere -----------------------------------------------------------------------------------


@pytest.mark.parametrize("base_url", [None, ""])
def test_without_an_address_requests_go_to_yahoo_itself(base_url: str | None) -> None:
    elsewhere = Elsewhere.at(base_url)
    assert elsewhere.url(CHART) == CHART
    assert elsewhere.options() == {}


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("http://127.0.0.1:8000", Elsewhere("http", 8000, "127.0.0.1")),
        ("http://127.0.0.1:8000/", Elsewhere("http", 8000, "127.0.0.1")),
        ("http://localhost", Elsewhere("http", 80, "127.0.0.1")),
        ("https://127.0.0.1", Elsewhere("https", 443, "127.0.0.1")),
    ],
)
def test_an_address_is_read(base_url: str, expected: Elsewhere) -> None:
    assert Elsewhere.at(base_url) == expected


@pytest.mark.parametrize(
    "base_url",
    [
        "localhost:8000",
        "127.0.0.1",
        "//127.0.0.1:80",
        "ftp://127.0.0.1:21",
        "http://",
        "http://:8000",
        "http://127.0.0.1:port",
        "http://127.0.0.1:70000",
        "http://[::1",
        f"http://{'a' * 70}",
    ],
)
def test_what_is_no_address_is_told(base_url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Elsewhere.at(base_url)
    assert str(caught.value) == f"STOCKFLOW_YAHOO_URL={base_url!r} is not of the form http://HOST:PORT"


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        (CHART, "http://query2.finance.yahoo.com:8000/v8/finance/chart/AAPL"),
        ("https://fc.yahoo.com", "http://fc.yahoo.com:8000/"),
        ("https://guce.yahoo.com/copyConsent?sessionId=3_cc", "http://guce.yahoo.com:8000/copyConsent?sessionId=3_cc"),
    ],
)
def test_a_request_elsewhere_keeps_yahoos_host_path_and_query(url: str, asked: str) -> None:
    assert Elsewhere("http", 8000, "10.0.0.7").url(url) == asked


def test_every_host_is_connected_to_the_server_and_none_to_a_proxy() -> None:
    options = Elsewhere("http", 8000, "10.0.0.7").options()
    assert options == {CurlOpt.RESOLVE: ["*:8000:10.0.0.7"], CurlOpt.NOPROXY: "*"}


# --- what is noted -------------------------------------------------------------------------------


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> YahooSession:
    """A session over a transport that answers with the URL it was asked for."""

    def answer(self: Any, method: str, url: str, **options: Any) -> requests.Response:
        response = requests.Response()
        response.url = url
        return response

    monkeypatch.setattr(requests.Session, "request", answer)
    return YahooSession(Elsewhere("http", 8000, "127.0.0.1"))


def test_requests_are_counted_and_the_last_chart_is_kept(session: YahooSession) -> None:
    attempt = session.begin()
    session.get("https://fc.yahoo.com")
    assert (attempt.requests, attempt.answer) == (1, None)
    session.get(CHART)
    session.get("https://query1.finance.yahoo.com/v1/test/getcrumb")
    assert attempt.requests == 3
    assert attempt.answer.url == "http://query2.finance.yahoo.com:8000/v8/finance/chart/AAPL"


def test_an_attempt_begins_from_zero_and_nobody_has_to_begin_one(session: YahooSession) -> None:
    session.get(CHART)
    first = session.begin()
    session.get(CHART)
    second = session.begin()
    assert (first.requests, second.requests, second.answer) == (1, 0, None)


# --- Retry-After ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("1", 1), ("2.5", 2.5), (" 7 ", 7), ("121", 121), ("86400", 86_400), ("1e9", 1e9)],
)
def test_seconds_are_taken_however_many_they_are(text: str, seconds: float) -> None:
    assert retry_after_s({"Retry-After": text}) == seconds


@pytest.mark.parametrize(
    ("until", "seconds"),
    [
        ("Fri, 28 Nov 2025 18:00:30 GMT", 30),
        ("Fri, 28 Nov 2025 13:00:30 -0500", 30),
        ("Friday, 28-Nov-25 18:00:30 GMT", 30),
        ("Fri Nov 28 18:00:30 2025", 0),  # no time zone: nobody knows when
        ("Fri, 28 Nov 2025 17:59:30 GMT", 0),
        ("Sat, 29 Nov 2025 18:00:00 GMT", 86_400),
    ],
)
def test_a_date_is_counted_from_the_date_of_the_answer(until: str, seconds: float) -> None:
    assert retry_after_s({"Retry-After": until, "Date": DATE}) == seconds


@pytest.mark.parametrize("headers", [{}, {"Date": None}, {"Date": ""}], ids=["none", "null", "empty"])
@pytest.mark.parametrize(("early_s", "seconds"), [(45, 45), (86_400, 86_400), (0, 0), (-45, 0)])
def test_a_date_in_an_answer_without_one_is_counted_from_the_machines_clock(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str | None], early_s: int, seconds: float
) -> None:
    now = datetime(2025, 11, 28, 18, tzinfo=UTC) - timedelta(seconds=early_s)
    monkeypatch.setattr(yahoo_session, "system_clock", lambda: now)
    assert retry_after_s({"Retry-After": DATE, **headers}) == seconds


def test_a_date_in_an_answer_of_no_readable_date_asks_for_nothing() -> None:
    assert retry_after_s({"Retry-After": "Fri, 28 Nov 2125 18:00:00 GMT", "Date": "yesterday"}) == 0


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "-3",
        "nan",
        "inf",
        "1e999",
        "soon",
        "1;2",
        "Fri, 99 Nov 2025 18:00:30 GMT",
        f"{DATE[:-3]}+99999999999999",
    ],
)
def test_nonsense_asks_for_nothing(text: str | None) -> None:
    assert retry_after_s({"Retry-After": text, "Date": DATE}) == 0


def test_an_answer_without_the_header_asks_for_nothing() -> None:
    assert retry_after_s({}) == 0


@given(text=st.text(max_size=30), date=st.text(max_size=30) | st.just(DATE))
def test_whatever_the_header_says_the_wait_is_a_number_of_seconds(text: str, date: str) -> None:
    assert 0 <= retry_after_s({"Retry-After": text, "Date": date}) < math.inf
