"""What the embedded Yahoo keeps from one answer to the next: bodies, and counters that can begin anew."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.errors import SettingsError
from app.sessions import sessions_between
from embedded.market.bars import Market
from embedded.market.simulated import SimulatedMarket, simulate
from embedded.yahoo.__main__ import main
from embedded.yahoo.chart import chart_body
from embedded.yahoo.faults import Faults
from embedded.yahoo.kept import KeptBodies
from embedded.yahoo.query import ChartQuery
from embedded.yahoo.running import RunningServer, running_server


@pytest.fixture(scope="module")
def market() -> Market:
    return simulate(SimulatedMarket(tickers=3, sessions=2))


def ask(server: RunningServer, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def minutes_of(market: Market, ticker: str, first: int = 0, last: int = -1) -> str:
    """The path of a chart of the sessions from the first to the last one, by index."""
    sessions = sessions_between(market.days[0], market.days[-1])
    span = f"period1={sessions[first].open_ts}&period2={sessions[last].close_ts}"
    return f"/v8/finance/chart/{ticker}?{span}&interval=1m"


def bars_in(body: bytes) -> int:
    return len(json.loads(body)["chart"]["result"][0]["timestamp"])


# --- bodies ---------------------------------------------------------------------------------------


def test_a_chart_is_rendered_once_and_the_same_for_whoever_asks_again(market: Market) -> None:
    with running_server(market) as server:
        answers = [ask(server, minutes_of(market, name)) for name in ("SIM001", "SIM001", "sim001", "SIM002")]
        assert server.stats()["rendered"] == 2
    assert answers[0] == answers[1] == answers[2] != answers[3]
    sessions = sessions_between(market.days[0], market.days[-1])
    query = ChartQuery("1m", period1_s=sessions[0].open_ts, period2_s=sessions[-1].close_ts)
    assert answers[0][1] == chart_body("SIM001", market.bars["SIM001"], query, sessions, server.now)


@pytest.mark.parametrize(
    "other",
    [
        lambda market: minutes_of(market, "SIM001", last=0),
        lambda market: minutes_of(market, "SIM001") + "&includePrePost=true",
        lambda market: "/v8/finance/chart/SIM001?range=5d&interval=1m",
        lambda market: "/v8/finance/chart/SIM001?range=5d&interval=1d",
    ],
)
def test_another_question_has_an_answer_of_its_own(market: Market, other: Callable[[Market], str]) -> None:
    with running_server(market) as server:
        _, first = ask(server, minutes_of(market, "SIM001"))
        _, second = ask(server, other(market))
        assert server.stats()["rendered"] == 2
    assert first != second


def test_a_short_answer_is_not_given_to_those_who_get_a_whole_one(market: Market) -> None:
    faults = Faults(share=0.5, kinds=("short",), seed=1)
    path, whole = minutes_of(market, "SIM001"), len(market.bars["SIM001"])
    with running_server(market, faults=faults) as server:
        sizes = [bars_in(ask(server, path)[1]) for _ in range(12)]
        assert server.stats()["rendered"] == 2
        assert server.stats()["faults"]["short"] == sizes.count(-(-whole * 2 // 3))
    assert set(sizes) == {whole, -(-whole * 2 // 3)}


def test_a_refusal_is_refused_again(market: Market) -> None:
    with running_server(market) as server:
        assert [ask(server, minutes_of(market, "NOPE"))[0] for _ in range(2)] == [404, 404]
        assert server.stats()["rendered"] == 0


def test_the_body_that_was_used_least_recently_makes_room() -> None:
    kept = KeptBodies(10)
    kept.put("a", b"1234")
    kept.put("b", b"5678")
    assert kept.get("a") == b"1234"
    kept.put("c", b"90ab")
    assert [kept.get(name) for name in "abc"] == [b"1234", None, b"90ab"]
    kept.put("a", b"12")
    kept.put("d", b"cdef")
    assert [kept.get(name) for name in "acd"] == [b"12", b"90ab", b"cdef"]


def test_a_body_beyond_the_bound_is_not_kept_and_none_with_a_bound_of_0() -> None:
    kept = KeptBodies(3)
    kept.put("large", b"1234")
    kept.put("small", b"12")
    assert (kept.get("large"), kept.get("small")) == (None, b"12")
    nothing = KeptBodies(0)
    nothing.put("a", b"1")
    assert nothing.get("a") is None
    with pytest.raises(SettingsError):
        KeptBodies(-1)


def test_a_negative_memory_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--sim", "tickers=1", "--sim", "sessions=1", "--kept-mib", "-1"]) == 2
    assert capsys.readouterr().err == "embedded Yahoo: the memory for kept bodies must not be negative\n"


# --- counters -------------------------------------------------------------------------------------


def _reset(server: RunningServer) -> Any:
    status, body = ask(server, "/stats/reset", "POST")
    assert status == 200
    return json.loads(body)


def test_a_reset_answers_the_counters_and_starts_them_anew(market: Market) -> None:
    with running_server(market, faults=Faults(latency_ms=50)) as server:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda ticker: ask(server, minutes_of(market, ticker)), ("SIM001", "SIM002", "NOPE")))
        before = _reset(server)
        assert _without_times(before) == {
            "requests": {"chart": 3},
            "statuses": {"200": 2, "404": 1},
            "faults": {},
            "in_flight": 0,
            "peak_in_flight": 3,
            "rendered": 2,
        }
        nothing = {"requests": {}, "statuses": {}, "faults": {}, "in_flight": 0, "peak_in_flight": 0, "rendered": 0}
        assert server.stats() == {**nothing, "first_chart_s": 0.0, "last_chart_s": 0.0}
        ask(server, minutes_of(market, "SIM001"))
        assert {"requests": {"chart": 1}, "peak_in_flight": 1, "rendered": 0}.items() <= server.stats().items()


def test_the_first_and_the_last_chart_are_timed(market: Market) -> None:
    with running_server(market) as server:
        ask(server, minutes_of(market, "NOPE"))
        begun_s = time.monotonic()
        for _ in range(2):
            ask(server, minutes_of(market, "SIM001"))
            time.sleep(0.05)
        stats = server.stats()
    assert begun_s < stats["first_chart_s"] < stats["last_chart_s"] - 0.05
    assert stats["last_chart_s"] < time.monotonic() - 0.05


def test_a_reset_does_not_lose_who_is_still_waiting(market: Market) -> None:
    with running_server(market, faults=Faults(latency_ms=500)) as server, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ask, server, minutes_of(market, ticker)) for ticker in ("SIM001", "SIM002")]
        while server.stats()["in_flight"] < 2:
            time.sleep(0.01)
        _reset(server)
        assert (server.stats()["in_flight"], server.stats()["peak_in_flight"]) == (2, 2)
        assert [answer.result()[0] for answer in waiting] == [200, 200]
        assert (server.stats()["in_flight"], server.stats()["statuses"]) == (0, {"200": 2})


def test_a_reset_leaves_the_faults_as_the_seed_draws_them(market: Market) -> None:
    def statuses(resets: Sequence[int]) -> list[int]:
        with running_server(market, faults=Faults(share=0.5, kinds=("500",), seed=4)) as server:
            found = []
            for turn in range(12):
                if turn in resets:
                    _reset(server)
                found.append(ask(server, minutes_of(market, "SIM001"))[0])
        return found

    assert statuses(()) == statuses((3, 7))


def test_counters_are_reset_by_post_alone(market: Market) -> None:
    with running_server(market) as server:
        ask(server, minutes_of(market, "SIM001"))
        assert ask(server, "/stats/reset")[0] == 404
        assert server.stats()["requests"] == {"chart": 1}


def _without_times(stats: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stats.items() if not name.endswith("_s")}
