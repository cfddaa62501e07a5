"""What one poll says of the market: with all bars of a minute what training has, without some what is there."""

from __future__ import annotations

from dataclasses import fields
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from app import contract
from app.dataset.build import build_dataset
from app.serving.stream_reader import SCHEMA
from app.serving.ticks import VOLUME, Ticks, columns_of, ticks_from_frame, ticks_from_table
from app.sessions import Session, sessions_between
from app.settings import DatasetSettings
from tests.fakes import make_bars, make_sessions, market_bars

(SESSION,) = make_sessions(10)

Markets = dict[tuple[str, int], float]
"""By ticker and time."""


def bars(*tickers: str, minute: int = 3) -> pa.Table:
    return pa.concat_tables(make_bars(ticker, SESSION, [minute]) for ticker in tickers)


def returned(poll: pa.Table) -> dict[str, float]:
    columns = columns_of(poll)
    return dict(zip(columns["ticker"].to_pylist(), columns["market_return"].to_pylist(), strict=True))


def log_returns(poll: pa.Table) -> list[float]:
    return [float(np.log(bar["close"] / bar["open"])) for bar in poll.to_pylist()]


def of_dataset(bars: pa.Table, sessions: tuple[Session, ...], settings: DatasetSettings) -> Markets:
    """Each observed minute's market return in a dataset of the bars, by ticker and time."""
    tables = build_dataset(bars, sessions, settings).splits.values()
    rows = [row for table in tables for row in table.filter(table["observed"]).to_pylist()]
    return {(row["ticker"], int(row["ts"].timestamp())): row[contract.FEATURE_MARKET_RETURN] for row in rows}


def of_polls(bars: pa.Table) -> Markets:
    """The same where each minute is a poll, as float32, in which rows are stored."""
    found: Markets = {}
    for ts in pc.unique(bars["ts"]):
        columns = columns_of(bars.filter(pc.equal(bars["ts"], ts)))
        values = columns["market_return"].to_numpy().astype(np.float32).tolist()
        keys = zip(columns["ticker"].to_pylist(), columns["ts"].to_pylist(), strict=True)
        found |= dict(zip(keys, values, strict=True))
    return found


def test_a_poll_s_market_is_the_mean_of_the_moves_of_its_bars() -> None:
    poll = bars("A", "B", "C")
    assert returned(poll) == pytest.approx(dict.fromkeys("ABC", np.mean(log_returns(poll))))


def test_each_minute_of_a_poll_has_its_own_market() -> None:
    early, late = bars("A", "B", minute=3), bars("A", minute=4)
    columns = columns_of(pa.concat_tables([late, early]))
    assert columns["ts"].to_pylist() == [SESSION.open_ts + 60 * minute for minute in (3, 4, 3)]
    expected = [np.mean(log_returns(early)), *log_returns(late), np.mean(log_returns(early))]
    assert columns["market_return"].to_pylist() == pytest.approx(expected)


def test_the_order_of_a_poll_s_bars_changes_no_bit() -> None:
    tickers = [f"T{i:02d}" for i in range(40)]
    poll = bars(*tickers)
    shuffled = poll.take(np.random.default_rng(1).permutation(40))
    assert columns_of(shuffled).equals(columns_of(poll))


def test_whole_polls_are_what_training_has_to_the_last_bit() -> None:
    sessions = make_sessions(30, 30, 30)
    market = market_bars([f"T{i}" for i in range(9)], sessions, gaps={"T3": 3, "T5": 2})
    wanted = of_dataset(
        market, sessions, DatasetSettings(window_min=5, horizons_min=(2,), validation_days=1, test_days=1)
    )
    assert len(wanted) > 500
    assert of_polls(market).items() >= wanted.items()


def test_whole_polls_of_real_bars_are_what_training_has_to_the_last_bit(real_bars: pa.Table) -> None:
    sessions = sessions_between(date(2026, 3, 20), date(2026, 3, 24))
    since = pa.scalar(sessions[0].open_ts * 1000).cast(real_bars["ts"].type)
    market = real_bars.filter(pc.greater_equal(real_bars["ts"], since))
    wanted = of_dataset(market, sessions, DatasetSettings(validation_days=1, test_days=1))
    assert len(wanted) > 30_000
    assert of_polls(market).items() >= wanted.items()


def test_a_bar_that_comes_in_a_later_poll_has_that_poll_s_market_and_the_others_have_none_of_it() -> None:
    a, b, late = bars("A"), bars("B"), bars("LATE")
    first, second = returned(pa.concat_tables([a, b])), returned(pa.concat_tables([late, bars("A", minute=4)]))
    assert first == pytest.approx(dict.fromkeys("AB", np.mean(log_returns(a) + log_returns(b))))
    assert [second["LATE"]] == pytest.approx(log_returns(late))
    together = returned(pa.concat_tables([a, b, late]))
    assert len({round(value, 12) for value in (together["A"], first["A"], second["LATE"])}) == 3


def test_a_poll_without_bars_has_no_rows() -> None:
    assert len(columns_of(bars("A").slice(0, 0))) == 0


def test_columns_and_ticks_are_those_of_the_stream_whether_arrow_or_pandas_brings_them() -> None:
    columns = columns_of(bars("A", "B"))
    assert [f"{f.name} {f.type}" for f in columns.schema] == SCHEMA.replace("long", "int64").split(", ")[:-1]
    frame = columns.to_pandas()
    ticks, again = ticks_from_table(columns), ticks_from_frame(frame)
    for field in fields(Ticks):
        one, other = getattr(ticks, field.name), getattr(again, field.name)
        assert (one.tolist(), one.dtype) == (other.tolist(), other.dtype)
    assert ticks.bars[:, VOLUME].tolist() == [float(bar["volume"]) for bar in bars("A", "B").to_pylist()]
