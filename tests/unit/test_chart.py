"""Yahoo's answers, read: a chart's columns to the bit, or an error that says what the body is instead."""

from __future__ import annotations

import json
import math
import random
import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import UniverseError, YahooError
from app.ingest.chart import Delisted, Malformed, NoData, PassingFailure, RateLimited, Refused, parse_chart, refusal
from app.ingest.screening import screen
from tests.charts import (
    COLUMNS,
    TICKER,
    Row,
    bars_among,
    body,
    document,
    good_rows,
    is_disputable,
    raw_of,
    refusal_body,
    rows_in,
    rows_of,
)
from tests.fakes import make_sessions
from tests.mutations import mutated_body, mutated_document, restructured

SESSIONS = make_sessions(25, 14)
ROWS = good_rows(*SESSIONS)
NOW_TS = SESSIONS[-1].close_ts + 3600.0
DOCUMENT = document(ROWS)
BODY = body(ROWS)
SHARE = 0.9


def changed(change: Callable[[Any], Any]) -> bytes:
    """The body after a change of its result."""
    answer = document(ROWS[:3])
    change(answer["chart"]["result"][0])
    return json.dumps(answer).encode()


def with_price(text: str) -> bytes:
    """A chart of one row whose prices are spelled so."""
    return body([Row(60, 9.125, 9.125, 9.125, 9.125, 1.0)]).replace(b"9.125", text.encode())


def quote(result: Any) -> Any:
    return result["indicators"]["quote"][0]


# --- charts ---------------------------------------------------------------------------------------


def test_a_chart_is_its_columns() -> None:
    raw = parse_chart(BODY, TICKER)
    assert rows_of(raw) == ROWS
    assert raw.ts.dtype == np.int64
    assert {getattr(raw, name).dtype.name for name in COLUMNS} == {"float64"}


def test_rows_come_as_they_stand_with_their_nulls_and_in_their_order() -> None:
    rows = [ROWS[2], ROWS[0], ROWS[0], ROWS[1]._replace(open=None, volume=None), Row(61, None, None, None, None, None)]
    assert rows_of(parse_chart(body(rows), TICKER)) == rows


def test_a_known_ticker_without_bars_is_a_chart_without_rows() -> None:
    # As Yahoo says it, without any column; and said in full.
    for empty in (body([]), changed(lambda result: (quote(result).clear(), result.pop("timestamp")))):
        assert rows_of(parse_chart(empty, TICKER)) == []
    columns: dict[str, Any] = {"quote": [{name: [] for name in COLUMNS}]}
    assert rows_of(parse_chart(changed(lambda r: r.update(timestamp=[], indicators=columns)), TICKER)) == []


def test_what_is_not_needed_may_be_there_or_not_and_names_come_in_any_order() -> None:
    answer: Any = document(ROWS[:3])
    (result,) = answer["chart"]["result"]
    result["meta"] = {"symbol": TICKER, "new": [{"deep": [10**400, "\u20ac", None]}]}
    result["events"] = {"dividends": {"1": {"amount": 0.26}}}
    result["indicators"]["adjclose"] = [{"adjclose": None}]
    quote(result)["vwap"] = "none"
    turned = {"source": 1, "chart": {"error": None, "result": [dict(reversed(result.items()))]}}
    assert rows_of(parse_chart(json.dumps(turned, indent=2).encode(), TICKER)) == ROWS[:3]


def test_yahoo_may_write_the_symbol_in_small_letters() -> None:
    assert rows_of(parse_chart(body(ROWS[:3], "aapl"), TICKER)) == ROWS[:3]


def test_rows_can_be_picked_by_mask_and_by_index() -> None:
    raw = raw_of(ROWS[:4])
    assert rows_of(raw.part(np.array([True, False, False, True]))) == [ROWS[0], ROWS[3]]
    assert rows_of(raw.part(np.array([2, 0]))) == [ROWS[2], ROWS[0]]


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [("100", 100.0), ("1E2", 100.0), ("-0", 0.0), ("0.1", 0.1), ("1e-400", 0.0), ("9007199254740993", 2.0**53),
     ("123456789012345678901234567890", 123456789012345678901234567890.0), ("5e-324", 5e-324),
     ("1.7976931348623157e308", 1.7976931348623157e308), ("0." + "3" * 1000, 1 / 3)],
)  # fmt: skip
def test_a_price_may_be_spelled_as_json_allows(text: str, value: float) -> None:
    assert parse_chart(with_price(text), TICKER).open.tolist() == [value]


@pytest.mark.parametrize(
    "text",
    ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 400, "1" * 5000, "true", "false", '"100"', "[1]", "{}",
     "+1", ".5", "1.", "01", "0x10", "1_0", "1e", "--1", "nul", "None"],
)  # fmt: skip
def test_what_is_no_number_is_no_price(text: str) -> None:
    with pytest.raises(Malformed, match="AAPL: the answer is no chart"):
        parse_chart(with_price(text), TICKER)


@pytest.mark.parametrize("text", ["60.0", "6e1", "null", "true", '"60"', "9223372036854775808", "1" * 5000, "-1e30"])
def test_what_is_no_whole_number_of_64_bits_is_no_time(text: str) -> None:
    one = body([Row(4321, 9.0, 9.0, 9.0, 9.0, 1.0)])
    with pytest.raises(Malformed):
        parse_chart(one.replace(b"4321", text.encode()), TICKER)


@settings(derandomize=True, max_examples=300)
@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 30))
def test_prices_are_read_to_the_bit(price: float, digits: int) -> None:
    for text in (repr(price), f"{price:.{digits}e}"):
        if math.isfinite(float(text)):
            (read,) = parse_chart(with_price(text), TICKER).low.tolist()
            assert struct.pack("d", read) == struct.pack("d", float(text)) or read == 0 == float(text)


# --- bodies that are no chart ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "the answer is no chart"),
        (b"null", "the answer is no chart"),
        (b"<html><body>Will be right back</body></html>", "the answer is no chart"),
        (BODY[: len(BODY) // 2], "the answer is no chart"),
        (BODY + b"}", "the answer is no chart"),
        (b"\xef\xbb\xbf" + BODY, "the answer is no chart"),
        (BODY.decode().encode("utf-16"), "the answer is no chart"),
        (b"[" * 100_000, "the answer is no chart"),
        (b'{"a":' * 100_000, "the answer is no chart"),
        (BODY.replace(b'"longName": "', b'"longName": "\\q'), "the answer is no chart"),
        (BODY.replace(b'"symbol": "', b'"symbol": "\xff'), "the answer is no chart"),
        (b"{}", "the answer is no chart"),
        (b'{"chart": null}', "the answer is no chart"),
        (b'{"chart": {}}', "the answer holds no chart"),
        (b'{"chart": {"result": null, "error": null}}', "the answer holds no chart"),
        (b'{"chart": {"result": [], "error": null}}', "the answer holds no chart"),
        (b'{"chart": {"result": [null], "error": null}}', "the answer is no chart"),
        (b'{"chart": {"result": {}, "error": null}}', "the answer is no chart"),
        (refusal_body("Not Found", "No data found"), "No data found"),
        (refusal_body("Not Found"), "Not Found"),
        (b'{"chart": {"result": null, "error": "down"}}', "the answer is no chart"),
        (BODY.replace(b'"error": null', b'"error": {}'), ""),
        (BODY.replace(b'"error": null', b'"error": {"code": "x", "description": "both"}'), "both"),
        (body(ROWS, "MSFT"), "the answer is about 'MSFT'"),
        (BODY.replace(b'"1m"', b'"5m"'), "the answer has bars of '5m'"),
        (changed(lambda result: result.pop("meta")), "the answer is no chart"),
        (changed(lambda result: result["meta"].pop("symbol")), "the answer is no chart"),
        (changed(lambda result: result["meta"].update(symbol=None)), "the answer is no chart"),
        (changed(lambda result: result["meta"].update(dataGranularity=1)), "the answer is no chart"),
        (changed(lambda result: result.pop("indicators")), "the answer is no chart"),
        (changed(lambda result: result["indicators"].update(quote=[])), "the answer holds no chart"),
        (changed(lambda result: result["indicators"].update(quote=None)), "the answer is no chart"),
        (changed(lambda result: result["indicators"]["quote"].append({})), "the answer holds no chart"),
        (changed(lambda result: result.update(timestamp=None)), "the answer is no chart"),
        (changed(lambda result: result.update(timestamp={})), "the answer is no chart"),
        (changed(lambda result: result.pop("timestamp")), "the columns of the answer differ in length"),
        (changed(lambda result: result["timestamp"].pop()), "the columns of the answer differ in length"),
    ],
)
def test_a_body_that_is_no_chart_is_malformed(answer: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=f"^AAPL: {why}"):
        parse_chart(answer, TICKER)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_that_is_missing_null_or_of_another_length_makes_no_chart(name: str) -> None:
    for change in (
        lambda result: quote(result).pop(name),
        lambda result: quote(result).update({name: None}),
        lambda result: quote(result).update({name: []}),
        lambda result: quote(result)[name].pop(),
        lambda result: quote(result)[name].append(100.0),
        lambda result: quote(result)[name].insert(1, None),
        lambda result: quote(result)[name].__setitem__(1, True),
        lambda result: quote(result)[name].__setitem__(1, "100.0"),
        lambda result: quote(result)[name].__setitem__(1, [100.0]),
    ):
        with pytest.raises(Malformed):
            parse_chart(changed(change), TICKER)


def test_an_answer_of_two_charts_is_none() -> None:
    answer: Any = document(ROWS[:3])
    answer["chart"]["result"] *= 2
    with pytest.raises(Malformed, match="AAPL: the answer holds no chart"):
        parse_chart(json.dumps(answer).encode(), TICKER)


@pytest.mark.parametrize("name", [b"open", b"volume", b"timestamp"])
def test_of_a_name_that_stands_twice_the_last_value_counts_and_both_must_be_columns(name: bytes) -> None:
    three, again = body(ROWS[:3]), b'"%s": ' % name
    assert rows_of(parse_chart(three.replace(again, again + b"[], " + again), TICKER)) == ROWS[:3]
    for other in (b"null", b"[true]", b"{}"):
        with pytest.raises(Malformed):
            parse_chart(three.replace(again, again + other + b", " + again), TICKER)
    with pytest.raises(Malformed, match="differ in length"):
        parse_chart(three.replace(again, b'"first": ').replace(b"]}", b"], " + again + b"[]}"), TICKER)


def test_an_error_is_one_line_whatever_yahoo_says() -> None:
    said = "1m data not available\r\n\r\n  for startTime=1\u2028and endTime=2"
    for error in (
        refusal(422, refusal_body("Unprocessable Entity", said), TICKER),
        refusal(404, refusal_body("Not Found", said), TICKER),
    ):
        assert len(str(error).splitlines()) == 1
        assert "1m data not available for startTime=1 and endTime=2" in str(error)
    with pytest.raises(Malformed) as caught:
        parse_chart(refusal_body("Internal", said), TICKER)
    assert str(caught.value) == "AAPL: 1m data not available for startTime=1 and endTime=2"


# --- answers with another status ------------------------------------------------------------------

NOT_FOUND = refusal_body("Not Found", "No data found, symbol may be delisted")
BODIES = {
    "not found": NOT_FOUND,
    "no words": refusal_body("Not Found"),
    "no data": refusal_body("Bad Request", "Data doesn't exist for startDate = 1764599400, endDate = 1764601200"),
    "bad request": refusal_body("Bad Request", "Invalid input"),
    "unauthorized": refusal_body("Unauthorized", "Invalid Crumb"),
    "no code": b'{"chart": {"result": null, "error": {"description": "Not Found"}}}',
    "of another service": refusal_body("Not Found", "No such path", root="finance"),
    "no error": b'{"chart": {"result": null, "error": null}}',
    "a chart": BODY,
    "of a proxy": b"<html><title>404 Not Found</title></html>",
    "cut off": NOT_FOUND[:-9],
    "empty": b"",
}


def test_yahoos_404_with_its_own_words_says_that_there_is_no_such_symbol() -> None:
    error = refusal(404, NOT_FOUND, TICKER)
    assert type(error) is Delisted
    assert isinstance(error, UniverseError)
    assert str(error) == "AAPL: No data found, symbol may be delisted"
    assert str(refusal(404, BODIES["no words"], TICKER)) == "AAPL: Not Found"


@pytest.mark.parametrize("kind", ["of another service", "no error", "a chart", "of a proxy", "cut off", "empty"])
def test_a_404_in_nobodys_words_passes(kind: str) -> None:
    error = refusal(404, BODIES[kind], TICKER)
    assert (type(error), str(error)) == (PassingFailure, "AAPL: status 404")


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 403, 404, 408, 418, 422, 429, 500, 502, 503, 504, 999])
@pytest.mark.parametrize("kind", BODIES)
def test_each_status_with_each_body_has_one_meaning(status: int, kind: str) -> None:
    error = refusal(status, BODIES[kind], TICKER, retry_after_s=7.5)
    yahoo_refuses = kind in {"not found", "no words", "no data", "bad request", "unauthorized", "no code"}
    meaning: type[Exception] = PassingFailure
    if status in {429, 999}:
        meaning = RateLimited
    elif status == 404 and kind in {"not found", "no words"}:
        meaning = Delisted
    elif status == 400 and kind == "no data":
        meaning = NoData
    elif status in {400, 404, 422} and yahoo_refuses:
        meaning = Refused
    assert type(error) is meaning
    assert str(error).startswith("AAPL: ")
    assert not isinstance(error, PassingFailure) or error.retry_after_s == 7.5


def test_yahoos_400_that_it_has_no_data_of_a_time_is_no_refusal_of_the_question() -> None:
    error = refusal(400, BODIES["no data"], TICKER)
    assert type(error) is NoData
    assert str(error) == "AAPL: Data doesn't exist for startDate = 1764599400, endDate = 1764601200"
    assert not isinstance(error, PassingFailure | Refused | Delisted)


@pytest.mark.parametrize(
    "said", ["Invalid input", "1m data doesn't exist", "No. Data doesn't exist for startDate = 1, endDate = 2", ""]
)
def test_other_words_of_a_400_refuse_the_question(said: str) -> None:
    assert type(refusal(400, refusal_body("Bad Request", said), TICKER)) is Refused


def test_what_yahoo_refuses_for_good_is_said_in_its_words() -> None:
    error = refusal(422, refusal_body("Unprocessable Entity", "1m data not available"), TICKER)
    assert str(error) == "AAPL: Yahoo refuses the request for good: 1m data not available"
    assert isinstance(error, YahooError)
    assert not isinstance(error, PassingFailure)


@settings(derandomize=True, max_examples=200)
@given(status=st.integers(100, 999), answer=st.one_of(st.binary(max_size=60), st.sampled_from(list(BODIES.values()))))
@example(status=404, answer=b'{"chart": {"error": {"code": "not found"}}}')
@example(status=404, answer=b'{"chart": {"error": {"code": ["Not Found"]}}}')
def test_no_ticker_is_delisted_but_by_yahoos_404(status: int, answer: bytes) -> None:
    said = status == 404 and answer in (BODIES["not found"], BODIES["no words"])
    assert isinstance(refusal(status, answer, TICKER), Delisted) == said


# --- any body -------------------------------------------------------------------------------------


def assert_read_rightly(answer: bytes) -> bool:
    """An error of one line, or the rows that a plain reading finds and the bars among them; whether it was read."""
    begun_s = time.process_time()
    raw, error = None, ""
    try:
        raw = parse_chart(answer, TICKER)
    except Malformed as exc:
        error = str(exc)
    assert time.process_time() - begun_s < 1
    rows = rows_in(answer)
    if raw is None:
        assert error.startswith(f"{TICKER}: ")
        assert len(error.splitlines()) == 1
        assert rows is None or is_disputable(answer)
        return False
    assert rows is not None
    assert rows_of(raw) == rows
    assert rows_of(screen(raw, SESSIONS, NOW_TS, SHARE).bars) == bars_among(rows, SESSIONS, NOW_TS)
    return True


def assert_says_nothing_new(answer: bytes) -> bool:
    """An error, or bars that the true chart holds too, with their volume or none; whether there were any."""
    try:
        raw = parse_chart(answer, TICKER)
    except Malformed:
        return False
    bars = rows_of(screen(raw, SESSIONS, NOW_TS, SHARE).bars)
    assert {*bars} <= {*ROWS, *(row._replace(volume=0.0) for row in ROWS)}
    return bool(bars)


def fuzz(seed: int, bodies: int, check: Callable[[bytes], bool], mutate: Callable[[random.Random], bytes]) -> int:
    """Check so many bodies; returns how many were read. A failure names the body."""
    draw = random.Random(seed)
    read = 0
    for number in range(bodies):
        answer = mutate(draw)
        try:
            read += check(answer)
        except Exception as exc:
            raise AssertionError(f"body {number} of seed {seed}: {answer!r}") from exc
    return read


MUTATIONS: dict[str, tuple[Callable[[bytes], bool], Callable[[random.Random], bytes]]] = {
    "bytes": (assert_read_rightly, lambda draw: mutated_body(BODY, draw)),
    "values": (assert_read_rightly, lambda draw: mutated_document(DOCUMENT, draw)),
    "structure": (assert_read_rightly, lambda draw: restructured(DOCUMENT, draw)),
    "structure, truth": (assert_says_nothing_new, lambda draw: restructured(DOCUMENT, draw)),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", MUTATIONS)
def test_a_mutated_body_is_an_error_or_gives_right_bars(kind: str) -> None:
    bodies = 500
    assert bodies / 20 < fuzz(1, bodies, *MUTATIONS[kind]) < bodies


@pytest.mark.chaos
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(2, 7))
@pytest.mark.parametrize("kind", MUTATIONS)
def test_of_very_many_mutated_bodies_each_is_an_error_or_gives_right_bars(kind: str, seed: int) -> None:
    fuzz(seed, 10_000, *MUTATIONS[kind])
