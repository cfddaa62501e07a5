"""What looks at more than one ticker: the market's return, and the volume that is usual at a minute of the session."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from app.contract import SESSION_MINUTES
from app.dataset.build import Dataset, build_dataset
from app.dataset.cut import cut_sessions, volume_profile, within
from app.dataset.split import split_by_time
from app.sessions import sessions_between
from app.settings import DatasetSettings
from tests.fakes import make_bars, make_sessions, market_bars, with_column

WINDOW, HORIZON = 5, 2
SESSIONS = make_sessions(30, 20, 30, 30, 30)  # three to train on, one to validate, one to test
BARS = market_bars(["LIQ", "THIN"], SESSIONS, gaps={"THIN": 4})


def built(bars: pa.Table = BARS) -> Dataset:
    settings = DatasetSettings(
        window_min=WINDOW, horizons_min=(HORIZON,), validation_days=1, test_days=1, max_filled_share=0.5
    )
    return build_dataset(bars, SESSIONS, settings)


def test_the_usual_volume_of_a_minute_is_the_mean_of_the_training_bars_less_their_ticker_s() -> None:
    number, ticker, volume = [], [], []
    for name, step in (("LIQ", None), ("THIN", 4)):
        for session, minutes in ((SESSIONS[0], 30), (SESSIONS[1], 20), (SESSIONS[2], 30 - WINDOW - HORIZON)):
            bars = make_bars(name, session, [m for m in range(session.minutes) if step is None or m % step])
            at = (bars["ts"].cast(pa.int64()).to_numpy() // 1000 - session.open_ts) // 60
            number += at[at < minutes].tolist()
            volume += np.log1p(bars["volume"].to_numpy())[at < minutes].tolist()
            ticker += [name] * int((at < minutes).sum())
    frame = pd.DataFrame({"number": number, "ticker": ticker, "volume": volume})
    frame["less"] = frame["volume"] - frame.groupby("ticker")["volume"].transform("mean")
    expected = frame.groupby("number")["less"].mean().reindex(range(390), fill_value=0.0)
    assert list(built().spec.volume_profile) == pytest.approx(expected.tolist())
    assert len(built().spec.volume_profile) == SESSION_MINUTES == 390


def test_relative_volume_is_the_volume_less_the_usual_one_on_every_day() -> None:
    dataset = built()
    profile = np.array(dataset.spec.volume_profile)
    for table in dataset.splits.values():
        number = table["session_minute"].to_numpy().astype(int)
        assert number.tolist() == [(ts.hour - 14) * 60 + ts.minute - 30 for ts in table["ts"].to_pylist()]
        expected = table["log_volume"].to_numpy() - profile[number]
        np.testing.assert_allclose(table["relative_volume"].to_numpy(), expected, atol=1e-6)


def test_the_market_s_return_is_the_mean_over_the_tickers_that_traded_in_that_minute() -> None:
    frame = BARS.to_pandas()
    frame["move"] = np.log(frame["close"] / frame["open"])
    mean = frame.groupby("ts")["move"].mean()
    for table in built().splits.values():
        rows = table.to_pandas()
        expected = np.where(rows["observed"], mean.reindex(rows["ts"]).to_numpy(), 0.0)
        np.testing.assert_allclose(rows["market_return"], expected, rtol=1e-6, atol=1e-12)


def moved_at(minute: int, day: int) -> Any:
    """The bars with a hundred times the volume in one minute of a day."""
    at = BARS["ts"].cast(pa.int64()).to_numpy() // 1000 == SESSIONS[day].open_ts + 60 * minute
    volume = BARS["volume"].to_numpy()
    return with_column(BARS, "volume", np.where(at, volume * 100, volume))


@pytest.mark.parametrize("day", range(len(SESSIONS)))
def test_each_bar_of_training_counts_for_the_usual_volume_and_none_of_the_gap_or_of_later_days(day: int) -> None:
    plain = built().spec.volume_profile
    last = {0: 30, 1: 20, 2: 30 - WINDOW - HORIZON}.get(day, 0)  # trained on: so many minutes of the day
    for minute in range(SESSIONS[day].minutes):
        moved = built(moved_at(minute, day)).spec.volume_profile
        assert (moved != plain) == (minute < last), minute


def test_without_a_trusted_volume_no_minute_is_unusual() -> None:
    session, *_ = later = make_sessions(20, 20, 20)
    pieces = cut_sessions(make_bars("A", session), later)
    faulty = {key: replace(bars, volume=np.full(20, np.nan)) for key, bars in pieces.items()}
    train = split_by_time(later, validation=1, test=1, gap_min=0)["train"]
    assert volume_profile(faulty, train).tolist() == [0.0] * SESSION_MINUTES
    assert volume_profile(pieces, train).any()


def test_a_single_ticker_is_its_own_market() -> None:
    bars = make_bars("A", SESSIONS[0])
    ((key, piece),) = cut_sessions(bars, SESSIONS).items()
    assert key == ("A", SESSIONS[0].day)
    np.testing.assert_allclose(piece.market_return, np.log(bars["close"].to_numpy() / bars["open"].to_numpy()))


def test_bars_are_cut_by_ticker_and_session_as_views() -> None:
    pieces = cut_sessions(BARS, SESSIONS)
    assert list(pieces) == [(ticker, session.day) for ticker in ("LIQ", "THIN") for session in SESSIONS]
    piece = pieces["THIN", SESSIONS[1].day]
    bars = make_bars("THIN", SESSIONS[1], [m for m in range(20) if m % 4])
    assert piece.ts.tolist() == [SESSIONS[1].open_ts + 60 * m for m in range(20) if m % 4]
    for name in ("open", "high", "low", "close", "volume"):
        assert getattr(piece, name).tolist() == bars[name].to_pylist()


def test_bars_outside_the_sessions_are_no_part_of_the_market() -> None:
    early, *_ = sessions_between(date(2026, 3, 12), date(2026, 3, 12))
    before = make_bars("A", early, [-1, 0, early.minutes])
    assert within(before, [early])["ts"].cast(pa.int64()).to_pylist() == [early.open_ts * 1000]
    assert within(BARS, SESSIONS) is BARS
