"""The dataset from small bars: what is fitted on what, what is masked, and what is refused."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from app.dataset.build import ROWS, Dataset, build_dataset
from app.dataset.spec import TickerScale
from app.dataset.windows import window_set
from app.errors import BadBars, TooFewBars
from app.sessions import sessions_between
from app.settings import DatasetSettings
from app.storage import to_json
from tests.fakes import make_bars, make_sessions, market_bars, with_column

WINDOW, HORIZON = 5, 2
SESSIONS = make_sessions(30, 20, 30, 30, 30)  # three to train on, one to validate, one to test
BARS = market_bars(["LIQ", "THIN"], SESSIONS, gaps={"THIN": 4})


def built(bars: pa.Table = BARS, **changed: Any) -> Dataset:
    settings: dict[str, Any] = {
        "window_min": WINDOW,
        "horizons_min": (1, HORIZON),
        "validation_days": 1,
        "test_days": 1,
        "max_filled_share": 0.5,
    } | changed
    return build_dataset(bars, SESSIONS, DatasetSettings(**settings))


def on_days(bars: pa.Table, *numbers: int) -> Any:
    """Mask of the bars on these sessions."""
    ts = bars["ts"].cast(pa.int64()).to_numpy() // 1000
    return np.any([(ts >= SESSIONS[i].open_ts) & (ts < SESSIONS[i].close_ts) for i in numbers], axis=0)


def disturbed(mask: Any) -> pa.Table:
    """The bars with other prices and volumes where the mask says."""
    random = np.random.default_rng(3)
    bars = BARS
    for name in ("open", "high", "low", "close"):
        values = bars[name].to_numpy()
        bars = with_column(bars, name, np.where(mask, values * random.uniform(2, 9, len(values)), values))
    return with_column(bars, "volume", np.where(mask, bars["volume"].to_numpy() * 50 + 1, bars["volume"].to_numpy()))


def test_each_split_holds_every_minute_of_its_sessions_up_to_the_gap() -> None:
    dataset = built()
    minutes = {"train": 30 + 20 + 30 - WINDOW - HORIZON, "validation": 30 - WINDOW - HORIZON, "test": 30}
    assert {name: len(table) for name, table in dataset.splits.items()} == {n: 2 * m for n, m in minutes.items()}
    assert dataset.days["validation"] == (SESSIONS[3].day,)
    train = dataset.splits["train"]
    assert train.schema == ROWS
    assert train.sort_by([("ticker", "ascending"), ("ts", "ascending")]).equals(train)
    assert max(train["ts"].to_pylist()).timestamp() == SESSIONS[2].open_ts + 60 * (30 - WINDOW - HORIZON - 1)


def test_the_count_of_windows_is_that_of_the_windows_cut() -> None:
    dataset = built()
    cut = {name: len(window_set(table, dataset.spec, 0.5)) for name, table in dataset.splits.items()}
    assert dataset.windows == cut
    # LIQ lacks nothing, THIN every fourth minute: a quarter of its windows ends in a minute without a bar.
    assert cut["test"] == 24 + 18


@pytest.mark.parametrize("ticker", ["LIQ", "THIN"])
def test_the_scale_is_that_of_the_training_minutes_that_hold_a_bar(ticker: str) -> None:
    returns, volumes, targets = [], [], []
    for session, minutes in ((SESSIONS[0], 30), (SESSIONS[1], 20), (SESSIONS[2], 30 - WINDOW - HORIZON)):
        bars = make_bars(ticker, session, [m for m in range(session.minutes) if ticker == "LIQ" or m % 4])
        close = bars["close"].to_numpy()
        held = (bars["ts"].cast(pa.int64()).to_numpy() // 1000 - session.open_ts) // 60 < minutes
        returns.append(np.diff(np.log([bars["open"][0].as_py(), *close]))[held])
        volumes.append(np.log1p(bars["volume"].to_numpy())[held])
        if ticker == "LIQ":  # every minute has a bar: windows end in each of them, from the fifth on
            last = np.arange(WINDOW - 1, minutes - HORIZON)
            targets.append(np.log([close[last + ahead] / close[last] for ahead in (1, HORIZON)]))
    scale = built().spec.select(("log_return", "log_volume")).scales[ticker]
    assert scale.mean == pytest.approx([np.concatenate(part).mean() for part in (returns, volumes)], rel=1e-4)
    assert scale.std == pytest.approx([np.concatenate(part).std() for part in (returns, volumes)], rel=1e-5)
    if targets:
        around_zero = np.sqrt(np.mean(np.concatenate(targets, axis=1) ** 2, axis=1))
        assert scale.target_std == pytest.approx(around_zero, rel=1e-5)


@pytest.mark.parametrize("numbers", [(4,), (3,), (3, 4)])
def test_bars_of_validation_and_test_days_do_not_move_the_scale(numbers: tuple[int, ...]) -> None:
    plain, moved = built(), built(disturbed(on_days(BARS, *numbers)))
    assert moved.spec.scales == plain.spec.scales
    assert moved.spec.default_scale == plain.spec.default_scale
    assert moved.spec.volume_profile == plain.spec.volume_profile
    assert moved.spec.fingerprint != plain.spec.fingerprint


def test_bars_of_the_gap_move_neither_the_scale_nor_the_data() -> None:
    ts = BARS["ts"].cast(pa.int64()).to_numpy() // 1000
    gap = on_days(BARS, 2) & (ts >= SESSIONS[2].close_ts - 60 * (WINDOW + HORIZON))
    assert gap.any()
    assert built(disturbed(gap)).spec == built().spec


def test_bars_of_training_days_move_the_scale_and_the_usual_volume() -> None:
    plain, moved = built(), built(disturbed(on_days(BARS, 0)))
    assert moved.spec.scales != plain.spec.scales
    assert moved.spec.volume_profile != plain.spec.volume_profile


def test_a_faulty_volume_is_masked_and_reported_and_its_prices_are_kept() -> None:
    liquid = (BARS["ticker"].to_numpy(zero_copy_only=False) == "LIQ") & on_days(BARS, 1)
    faulty = liquid & (np.cumsum(liquid) % 2 == 1)  # ten zero bars
    dataset = built(with_column(BARS, "volume", np.where(faulty, 0, BARS["volume"].to_numpy())))
    plain = built()
    rows, train = plain.splits["train"], dataset.splits["train"]
    masked = np.isnan(train["log_volume"].to_numpy())
    assert np.array_equal(masked, np.isnan(train["relative_volume"].to_numpy()))
    day = [ts.date() == SESSIONS[1].day for ts in rows["ts"].to_pylist()]
    assert masked.tolist() == [
        ticker == "LIQ" and on for ticker, on in zip(rows["ticker"].to_pylist(), day, strict=True)
    ]
    of_volume = ["log_volume", "relative_volume"]
    assert train.drop(of_volume).equals(rows.drop(of_volume))
    assert dataset.report()["volume_faults"] == [
        {
            "ticker": "LIQ",
            "day": SESSIONS[1].day,
            "zero_bars": 10,
            "total_ratio": dataset.faults[0].total_ratio.__round__(2),
        }
    ]
    assert np.isfinite(dataset.spec.scales["LIQ"].std).all()
    assert np.isfinite(window_set(train, dataset.spec, 0.5).rows).all()


def test_the_same_bars_and_settings_have_the_same_fingerprint_and_others_another() -> None:
    assert built().spec.fingerprint == built().spec.fingerprint
    last = np.arange(len(BARS)) == len(BARS) - 1
    others = [built(disturbed(last)), built(BARS.slice(0, len(BARS) - 1))]
    others += [
        built(horizons_min=(1,)),
        built(max_filled_share=0.4),
        built(with_column(BARS, "high", [1e3] * len(BARS))),
    ]
    assert len({built().spec.fingerprint, *(other.spec.fingerprint for other in others)}) == 6


def test_a_day_on_which_no_ticker_has_enough_bars_is_refused_until_it_is_left_out() -> None:
    few = pa.concat_tables(
        make_bars(ticker, session, range(6) if session == SESSIONS[1] else None)
        for ticker in ("A", "B")
        for session in SESSIONS
    )
    with pytest.raises(TooFewBars) as caught:
        built(few)
    assert "2025-12-02: no ticker has more than 6 bars" in str(caught.value)
    assert 'dataset.exclude_days=["2025-12-02"]' in str(caught.value)
    assert SESSIONS[1].day not in built(few, exclude_days=(SESSIONS[1].day,)).days["train"]


def test_one_ticker_with_too_few_bars_is_reported_and_the_others_go_on() -> None:
    bars = pa.concat_tables([make_bars("A", s) for s in SESSIONS] + [make_bars("B", SESSIONS[4], [0, 3, 7])])
    dataset = built(bars)
    assert dataset.report()["short_sessions"] == [{"ticker": "B", "day": SESSIONS[4].day, "bars": 3}]
    assert dataset.filled_minutes == 27
    assert set(dataset.spec.scales) == {"A"}
    assert dataset.spec.scale_of("B") == dataset.spec.default_scale


def test_a_ticker_that_training_never_saw_takes_the_pooled_scale() -> None:
    bars = pa.concat_tables([make_bars("A", s) for s in SESSIONS] + [make_bars("B", SESSIONS[4])])
    spec = built(bars).spec
    assert spec.default_scale == spec.scales["A"] == spec.scale_of("B")
    assert isinstance(spec.scale_of("B"), TickerScale)


def test_a_split_without_a_window_is_named() -> None:
    # On the day of the test every second minute lacks: no window may lack so many.
    bars = pa.concat_tables(make_bars("A", s, range(0, 30, 2) if s == SESSIONS[4] else None) for s in SESSIONS)
    with pytest.raises(TooFewBars, match="the test days 2025-12-05 to 2025-12-05 hold no window of 5"):
        built(bars, max_filled_share=0.1)


def test_broken_bars_are_refused() -> None:
    with pytest.raises(BadBars, match="non-positive prices"):
        built(with_column(BARS, "close", [0.0] * len(BARS)))


def test_broken_bars_of_a_day_that_is_left_out_do_no_harm() -> None:
    broken = with_column(BARS, "close", np.where(on_days(BARS, 1), 0.0, BARS["close"].to_numpy()))
    with pytest.raises(BadBars) as caught:
        built(broken)
    assert 'dataset.exclude_days=["2025-12-02"]' in str(caught.value)
    left_out = (SESSIONS[1].day,)
    assert built(broken, exclude_days=left_out).spec == built(exclude_days=left_out).spec


def test_the_report_is_json_and_progress_counts_tickers() -> None:
    told: list[tuple[int, int]] = []
    settings = DatasetSettings(window_min=WINDOW, horizons_min=(HORIZON,), validation_days=1, test_days=1)
    dataset = build_dataset(BARS, SESSIONS, settings, lambda done, total: told.append((done, total)))
    assert to_json(dataset.report())
    assert told == [(0, 2), (1, 2), (2, 2)]


def test_the_faulty_volumes_of_four_real_days_are_found_and_no_others(real_bars: pa.Table) -> None:
    faulty_days = [date(2026, 3, day) for day in (16, 17, 18, 19)]
    liquid = real_bars.filter(pc.is_in(real_bars["ticker"], pa.array(["AAPL", "MSFT", "QQQ"])))
    sessions = sessions_between(date(2026, 3, 12), date(2026, 3, 24))
    faults = build_dataset(liquid, sessions, DatasetSettings()).faults
    assert [(f.day, f.ticker) for f in faults] == [(day, t) for day in faulty_days for t in ("AAPL", "MSFT", "QQQ")]
    assert all(fault.zero_bars >= 10 and fault.total_ratio > 2 for fault in faults)
    everyone = build_dataset(real_bars, sessions, DatasetSettings())
    assert {fault.day for fault in everyone.faults} == set(faulty_days)
