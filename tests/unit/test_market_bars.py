"""Bars files are read whole or refused with the reason."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.errors import BadBars
from app.ingest.ticker_bars import TickerBars
from embedded.market.bars import Market, read_bars_file

OPEN_S = int(datetime(2026, 3, 12, 13, 30, tzinfo=UTC).timestamp())


def columns(**changed: list[Any]) -> dict[str, Any]:
    """Three bars of AAPL and two of MSFT, with some columns replaced."""
    ts = [OPEN_S, OPEN_S + 60, OPEN_S + 180, OPEN_S, OPEN_S + 60]
    values: dict[str, Any] = {
        "ticker": ["AAPL", "AAPL", "AAPL", "MSFT", "MSFT"],
        "ts": ts,
        "open": [10.0, 11.0, 12.0, 400.0, 401.0],
        "high": [11.5, 12.0, 12.5, 402.0, 402.0],
        "low": [9.5, 10.5, 11.5, 399.0, 400.0],
        "close": [11.0, 12.0, 12.0, 401.0, 400.0],
        "volume": [100, 0, 300, 400, 500],
    }
    return values | changed


def write(path: Path, values: dict[str, Any], ts_type: Any = None) -> Path:
    kind = ts_type or pa.timestamp("ms", tz="UTC")
    arrays: dict[str, Any] = dict(values)
    if "ts" in values:
        seconds = pa.array(values["ts"], pa.timestamp("s")).cast(pa.timestamp(kind.unit))
        arrays["ts"] = seconds.cast(pa.int64()).cast(kind)
    pq.write_table(pa.table(arrays), path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bars.parquet"


def test_a_file_becomes_one_set_of_arrays_per_ticker(path: Path) -> None:
    market = read_bars_file(write(path, columns()))
    assert market.tickers == ("AAPL", "MSFT")
    aapl, msft = market.bars["AAPL"], market.bars["MSFT"]
    assert aapl.ts.tolist() == [OPEN_S, OPEN_S + 60, OPEN_S + 180]
    assert aapl.close.tolist() == [11.0, 12.0, 12.0]
    assert msft.volume.tolist() == [400, 500]
    assert {array.dtype.name for array in (aapl.ts, aapl.volume)} == {"int64"}
    assert {array.dtype.name for array in (aapl.open, aapl.high, aapl.low, aapl.close)} == {"float64"}
    assert market.days == (date(2026, 3, 12),)
    assert market.end == datetime(2026, 3, 12, 13, 34, tzinfo=UTC)


def test_tickers_take_yahoos_spelling(path: Path) -> None:
    # Ordered as the file spells them: in Yahoo's spelling BRK-B would stand before BRK-C.
    tickers = ["BRK-C", "BRK-C", "BRK-C", "BRK.B", "BRK.B"]
    market = read_bars_file(write(path, columns(ticker=tickers)))
    assert market.tickers == ("BRK-B", "BRK-C")
    assert market.bars["BRK-B"].close.tolist() == [401.0, 400.0]


def test_two_spellings_of_one_ticker_and_what_is_no_ticker_are_refused(path: Path) -> None:
    with pytest.raises(BadBars, match=r"BRK-B and BRK\.B are the same ticker, BRK-B in Yahoo's spelling"):
        read_bars_file(write(path, columns(ticker=["BRK-B"] * 3 + ["BRK.B"] * 2)))
    with pytest.raises(BadBars, match="parquet: 'A/B' is no ticker: use letters"):
        read_bars_file(write(path, columns(ticker=["A/B"] * 3 + ["AAPL.L"] * 2)))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_ts_may_have_any_unit(path: Path, unit: str) -> None:
    written = write(path, columns(), pa.timestamp("ms" if unit == "s" else unit, tz="America/New_York"))
    assert read_bars_file(written).bars["MSFT"].ts.tolist() == [OPEN_S, OPEN_S + 60]


def test_tickers_may_be_dictionary_encoded_and_columns_may_be_more_and_narrower(path: Path) -> None:
    values = columns(source=["x"] * 5)
    values["ticker"] = pa.array(values["ticker"]).dictionary_encode()
    values["close"] = pa.array(values["close"], pa.float32())
    values["volume"] = pa.array(values["volume"], pa.uint32())
    assert read_bars_file(write(path, values)).bars["AAPL"].close.tolist() == [11.0, 12.0, 12.0]


def test_the_folder_of_a_partition_is_not_read_as_a_column(tmp_path: Path) -> None:
    folder = tmp_path / "ticker=X"
    folder.mkdir()
    assert read_bars_file(write(folder / "0.parquet", columns())).tickers == ("AAPL", "MSFT")


def test_a_close_that_float32_rounds_over_its_high_is_accepted(path: Path) -> None:
    high = [11.5, 12.0, 12.5, 402.0, 402.0]
    close = [11.0, 12.0 * (1 + 6e-8), 12.0, 401.0, 400.0]
    assert len(read_bars_file(write(path, columns(high=high, close=close))).bars["AAPL"]) == 3


@pytest.mark.parametrize(
    ("changed", "problem", "first"),
    [
        (
            {"close": [11.0, None, 12.0, None, 400.0]},
            "close is null, NaN or infinite in 2 of 5",
            "AAPL at 2026-03-12T13:31",
        ),
        (
            {"open": [10.0, 11.0, 12.0, float("nan"), 401.0]},
            "open is null, NaN or infinite in 1",
            "MSFT at 2026-03-12T13:30",
        ),
        ({"high": [11.5, float("inf"), 12.5, 402.0, 402.0]}, "high is null, NaN or infinite in 1", "AAPL"),
        ({"low": [9.5, 10.5, 0.0, -1.0, 400.0]}, "low is not positive in 2", "AAPL at 2026-03-12T13:33"),
        ({"volume": [100, 0, 300, -4, 500]}, "volume is negative in 1", "MSFT"),
        ({"volume": [100, 0, None, 4, 500]}, "volume is null in 1", "AAPL at 2026-03-12T13:33"),
        ({"high": [11.5, 12.0, 12.5, 398.0, 402.0]}, "high is below low in 1", "MSFT"),
        ({"open": [10.0, 12.1, 12.0, 400.0, 401.0]}, "open is outside low..high in 1", "AAPL at 2026-03-12T13:31"),
        ({"close": [11.0, 12.0, 12.0, 401.0, 399.9]}, "close is outside low..high in 1", "MSFT at 2026-03-12T13:31"),
        (
            {"ts": [OPEN_S, OPEN_S + 61, OPEN_S + 180, OPEN_S, OPEN_S + 60]},
            "ts is not on a whole minute in 1",
            "AAPL at 2026-03-12T13:31:01",
        ),
        (
            {"ts": [OPEN_S, OPEN_S + 60, OPEN_S * 10**6, OPEN_S, OPEN_S + 60]},
            "ts is not within 1970..2200 in 1",
            "AAPL at 56",
        ),
        (
            {"ts": [OPEN_S, OPEN_S + 60, OPEN_S + 60, OPEN_S, OPEN_S]},
            "(ticker, ts) is a duplicate in 2",
            "AAPL at 2026-03-12T13:31",
        ),
        (
            {"ts": [OPEN_S + 60, OPEN_S, OPEN_S + 60, OPEN_S, OPEN_S + 120]},
            "(ticker, ts) is a duplicate in 1",
            "AAPL at 2026-03-12T13:31",
        ),
        (
            {"ts": [OPEN_S, OPEN_S + 180, OPEN_S + 60, OPEN_S, OPEN_S + 60]},
            "(ticker, ts) is not in ascending order in 1",
            "AAPL at 2026-03-12T13:31",
        ),
        (
            {"ticker": ["MSFT", "MSFT", "MSFT", "AAPL", "AAPL"]},
            "(ticker, ts) is not in ascending order in 1",
            "AAPL at 2026-03-12T13:30",
        ),
    ],
)
def test_bad_rows_are_refused_with_their_number_and_the_first_of_them(
    path: Path, changed: dict[str, list[Any]], problem: str, first: str
) -> None:
    with pytest.raises(BadBars) as caught:
        read_bars_file(write(path, columns(**changed)))
    message = str(caught.value)
    assert message.startswith(f"{path}: {problem}")
    assert f"first {first}" in message
    assert "\n" not in message


def test_a_file_that_is_absent_or_no_parquet_is_refused(path: Path) -> None:
    with pytest.raises(BadBars, match="there is no such file"):
        read_bars_file(path)
    path.write_text("ticker,ts\n")
    with pytest.raises(BadBars, match="is not a readable Parquet file"):
        read_bars_file(path)
    with pytest.raises(BadBars, match="is not a readable Parquet file"):
        read_bars_file(path.parent)


def test_a_file_without_a_column_or_without_rows_is_refused(path: Path) -> None:
    values = columns()
    del values["volume"], values["high"]
    with pytest.raises(BadBars, match="lacks 2 of 7 columns, first high"):
        read_bars_file(write(path, values))
    with pytest.raises(BadBars, match="has no rows"):
        read_bars_file(write(path, {name: pa.array([], pa.array(v).type) for name, v in columns().items()}))


def test_times_without_a_zone_are_refused(path: Path) -> None:
    with pytest.raises(BadBars, match="ts names no time zone"):
        read_bars_file(write(path, columns(), pa.timestamp("ms")))


def test_columns_of_a_wrong_type_are_refused(path: Path) -> None:
    pq.write_table(pa.table(columns()), path)
    with pytest.raises(BadBars, match="ts has type int64: a timestamp with a time zone is needed"):
        read_bars_file(path)
    with pytest.raises(BadBars, match="open has type string and does not fit double"):
        read_bars_file(write(path, columns(open=["a"] * 5)))
    with pytest.raises(BadBars, match="volume has type double and does not fit int64"):
        read_bars_file(write(path, columns(volume=[0.5] * 5)))
    with pytest.raises(BadBars, match="ticker is null in 1 of 5 rows, first row 1"):
        read_bars_file(write(path, columns(ticker=["AAPL", None, "AAPL", "MSFT", "MSFT"])))


def test_days_are_new_york_dates() -> None:
    # 00:30 UTC is 19:30 or 20:30 of the day before in New York: after-hours trading.
    ts = np.array([datetime(2026, 3, 14, 0, 30, tzinfo=UTC).timestamp()], np.int64)
    one, volume = np.ones(1), np.ones(1, np.int64)
    assert Market({"X": TickerBars(ts, one, one, one, one, volume)}).days == (date(2026, 3, 13),)


def test_a_part_of_the_bars_is_cut_by_start_and_excluded_end(path: Path) -> None:
    bars = read_bars_file(write(path, columns())).bars["AAPL"]
    assert bars.between(OPEN_S, OPEN_S + 60).ts.tolist() == [OPEN_S]
    assert bars.between(OPEN_S + 1, OPEN_S + 181).ts.tolist() == [OPEN_S + 60, OPEN_S + 180]
    assert len(bars.between(OPEN_S + 60, OPEN_S)) == 0


def test_the_real_file_is_read(real_bars_path: Path) -> None:
    market = read_bars_file(real_bars_path)
    assert len(market.tickers) == 35
    assert len(market.days) == 9
    assert (market.days[0], market.days[-1]) == (date(2026, 3, 12), date(2026, 3, 24))
    assert sum(len(bars) for bars in market.bars.values()) == pq.read_metadata(real_bars_path).num_rows
    assert market.end == datetime(2026, 3, 24, 20, 0, tzinfo=UTC)
