"""The stream's windows: those of the dataset, bit for bit, however the bars arrive."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import contract
from app.dataset.build import build_dataset
from app.dataset.spec import Spec, TickerScale
from app.dataset.windows import window_set
from app.errors import ServingError
from app.serving.rings import ReadyWindows, Rings
from app.serving.warm import ticks_from_table
from app.sessions import Session, sessions_between
from app.settings import DatasetSettings
from tests.fakes import make_bars, make_sessions, market_bars, with_column

WINDOW, HORIZON = 5, 2
SESSIONS = make_sessions(20, 14, 20, 20)
UNSCALED = TickerScale((0.0, 0.0), (1.0, 1.0), 1.0)

Windows = dict[tuple[str, int], tuple[bytes, float, int]]
"""By ticker and time: the rows' bytes, the last price, the carried minutes."""


def by_key(rings: Rings, *parts: ReadyWindows) -> Windows:
    return {
        (rings.tickers[ready.ticker[i]], int(ready.as_of[i])): (
            ready.rows[i].tobytes(),
            float(ready.last_price[i]),
            int(ready.carried[i]),
        )
        for ready in parts
        for i in range(len(ready.ticker))
    }


def streamed(bars: pa.Table, sessions: Sequence[Session], window: int, cuts: Sequence[int] = ()) -> Windows:
    """Windows of bars in order of time, applied in micro-batches cut before these rows; state travels as a blob."""
    bars = bars.sort_by([("ts", "ascending"), ("ticker", "ascending")])
    blob = Rings.empty(sorted(set(bars["ticker"].to_pylist())), window).to_bytes()
    found: Windows = {}
    for first, end in zip([0, *cuts], [*cuts, len(bars)], strict=True):
        rings = Rings.from_bytes(blob, window)
        found |= by_key(rings, rings.apply(ticks_from_table(bars.slice(first, end - first)), sessions))
        assert rings.late == 0
        blob = rings.to_bytes()
    return found


def assert_windows_are_those_of_the_dataset(
    bars: pa.Table, sessions: Sequence[Session], wanted: DatasetSettings
) -> int:
    """Compare every window of the dataset with the stream's; returns how many there were."""
    window, horizon = wanted.window_min, wanted.horizon_min
    spec = Spec(window, horizon, contract.FEATURES, {}, UNSCALED, "")
    ready = streamed(bars, sessions, window)
    compared = 0
    for table in build_dataset(bars, sessions, wanted).splits.values():
        cut = window_set(table, spec, wanted.max_filled_share)
        keys = [(cut.tickers[code], int(as_of)) for code, as_of in zip(cut.ticker, cut.as_of, strict=True)]
        found = [ready[key] for key in keys]
        assert [rows for rows, _, _ in found] == [window.tobytes() for window in cut.inputs(slice(None))]
        assert [price for _, price, _ in found] == cut.last_price.tolist()
        assert {carried for _, _, carried in found} == {0}
        compared += len(keys)
    return compared


def test_windows_are_those_of_the_dataset_over_gaps_late_openings_and_half_days() -> None:
    # DENSE lacks nothing; GAPPY starts each session late and lacks every third minute; THIN every second.
    bars = market_bars(["DENSE", "GAPPY", "THIN"], SESSIONS, gaps={"GAPPY": 3, "THIN": 2})
    wanted = DatasetSettings(
        window_min=WINDOW, horizon_min=HORIZON, validation_days=1, test_days=1, max_filled_share=0.9
    )
    assert assert_windows_are_those_of_the_dataset(bars, SESSIONS, wanted) > 60


def test_windows_of_a_real_session_are_those_of_the_dataset(real_bars: pa.Table) -> None:
    sessions = sessions_between(date(2026, 3, 20), date(2026, 3, 24))  # after the days of faulty volumes
    since = pa.scalar(sessions[0].open_ts * 1000).cast(real_bars["ts"].type)
    bars = real_bars.filter(pc.greater_equal(real_bars["ts"], since))
    wanted = DatasetSettings(validation_days=1, test_days=1, max_filled_share=0.99)
    built = assert_windows_are_those_of_the_dataset(bars, sessions, wanted)
    assert built > 35 * 326 * 2


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(1, 100), max_size=12, unique=True).map(sorted))
def test_however_bars_are_cut_into_micro_batches_the_windows_are_the_same(cuts: list[int]) -> None:
    bars = market_bars(["A", "B", "GAPPY"], SESSIONS[:2], gaps={"GAPPY": 3})
    assert streamed(bars, SESSIONS, WINDOW, [c for c in cuts if c < len(bars)]) == streamed(bars, SESSIONS, WINDOW)


@settings(max_examples=15)
@given(order=st.permutations(range(40)))
def test_the_order_within_a_micro_batch_does_not_matter(order: list[int]) -> None:
    bars = market_bars(["A", "B"], SESSIONS[:1])
    rings = Rings.empty(("A", "B"), WINDOW)
    assert by_key(rings, rings.apply(ticks_from_table(bars.take(order)), SESSIONS)) == streamed(bars, SESSIONS, WINDOW)


# --- one ticker, by hand -------------------------------------------------------------------------


def ticks(session: Session, *minutes: int, closes: Sequence[float] | None = None) -> pa.Table:
    return make_bars("A", session, minutes, closes=closes, volumes=[0] * len(minutes))


def rings_of_a() -> Rings:
    return Rings.empty(("A",), WINDOW)


def returns_of(ready: ReadyWindows) -> list[list[float]]:
    returns: list[list[float]] = np.round(ready.rows[:, :, 0], 5).tolist()
    return returns


def test_a_window_is_ready_from_its_last_bar_on_and_holds_one_row_for_each_minute() -> None:
    session, rings = SESSIONS[0], rings_of_a()
    bars = ticks(session, 0, 1, 2, 3, 5, closes=[1, np.e, np.e**3, np.e**3, np.e**7])
    first = rings.apply(ticks_from_table(bars.slice(0, 4)), SESSIONS)
    assert (len(first.ticker), first.rows.shape) == (0, (0, WINDOW, 2))
    ready = rings.apply(ticks_from_table(bars.slice(4)), SESSIONS)
    assert returns_of(ready) == [[1, 2, 0, 0, 4]]  # minute 4 lacks: no return, and the next one spans it
    assert ready.as_of.tolist() == [session.open_ts + 300]
    assert ready.last_price.tolist() == [np.e**7]
    assert ready.carried.tolist() == [0]


def test_a_session_is_filled_to_its_close_and_the_next_opens_without_the_night() -> None:
    first, second = make_sessions(6, 6)
    rings = rings_of_a()
    rings.apply(ticks_from_table(ticks(first, 0, 1, 2, 3, closes=[1, np.e, np.e**2, np.e**3])), (first, second))
    morning = with_column(ticks(second, 1, 2, closes=[np.e**9, np.e**10]), "open", [np.e**8, 1.0])
    ready = rings.apply(ticks_from_table(morning), (first, second))
    # Minutes 2 and 3 traded, 4 and 5 did not; then the next session's 0, which did not, and 1, from its open.
    assert returns_of(ready) == [[1, 0, 0, 0, 1], [0, 0, 0, 1, 1]]
    assert ready.carried.tolist() == [3, 2]


def test_carried_minutes_run_out_one_a_minute() -> None:
    first, second = SESSIONS[:2]
    rings = rings_of_a()
    rings.apply(ticks_from_table(ticks(first, *range(20))), SESSIONS)
    ready = rings.apply(ticks_from_table(ticks(second, *range(8))), SESSIONS)
    assert ready.carried.tolist() == [4, 3, 2, 1, 0, 0, 0, 0]


def test_carried_minutes_stay_until_the_window_is_full() -> None:
    short, second = make_sessions(3, 6)
    rings = rings_of_a()
    rings.apply(ticks_from_table(ticks(short, 0, 1, 2)), (short, second))
    ready = rings.apply(ticks_from_table(ticks(second, 0, 1, 2)), (short, second))
    assert ready.carried.tolist() == [3, 2]


def test_a_gap_longer_than_the_window_leaves_nothing_of_what_was_before() -> None:
    session, rings = SESSIONS[0], rings_of_a()
    ready = rings.apply(ticks_from_table(ticks(session, 0, 19, closes=[1, np.e])), SESSIONS)
    assert returns_of(ready) == [[0, 0, 0, 0, 1]]
    assert ready.carried.tolist() == [0]


def test_duplicates_and_late_bars_are_counted_and_change_nothing() -> None:
    session = SESSIONS[0]
    clean, disturbed = rings_of_a(), rings_of_a()
    clean.apply(ticks_from_table(ticks(session, 0, 1, 2, 4)), SESSIONS)
    expected = clean.apply(ticks_from_table(ticks(session, 5)), SESSIONS)
    bars = ticks(session, 0, 1, 2, 4)
    disturbed.apply(ticks_from_table(pa.concat_tables([bars, bars.slice(1, 2)])), SESSIONS)
    assert disturbed.late == 2
    late = disturbed.apply(ticks_from_table(ticks(session, 3, 4)), SESSIONS)
    assert (disturbed.late, len(late.ticker)) == (4, 0)
    found = disturbed.apply(ticks_from_table(ticks(session, 5)), SESSIONS)
    assert np.array_equal(found.rows, expected.rows)


def test_a_late_bar_of_an_earlier_session_is_dropped() -> None:
    rings = rings_of_a()
    rings.apply(ticks_from_table(ticks(SESSIONS[1], 0)), SESSIONS)
    rings.apply(ticks_from_table(ticks(SESSIONS[0], 19)), SESSIONS)
    assert rings.late == 1
    assert rings.last_ts.tolist() == [SESSIONS[1].open_ts]


def test_a_bar_outside_all_sessions_is_refused() -> None:
    session = SESSIONS[0]
    for minute in (-1, session.minutes):
        with pytest.raises(ServingError, match=r"a bar at epoch second \d+ lies in no session"):
            rings_of_a().apply(ticks_from_table(ticks(session, minute)), SESSIONS)


# --- the blob ------------------------------------------------------------------------------------


def fed() -> Rings:
    rings = Rings.empty(("A", "B", "NEVER"), WINDOW)
    bars = market_bars(["A", "B"], SESSIONS[:2], gaps={"B": 3})
    rings.apply(ticks_from_table(pa.concat_tables([bars, bars.slice(3, 2)])), SESSIONS)
    return rings


def assert_same(found: Rings, expected: Rings) -> None:
    assert found.tickers == expected.tickers
    for name, array in vars(expected).items():
        if isinstance(array, np.ndarray):
            assert np.array_equal(getattr(found, name), array), name


def test_a_blob_comes_back_as_it_went_and_can_be_written_to() -> None:
    rings = fed()
    back = Rings.from_bytes(rings.to_bytes(), WINDOW)
    assert_same(back, rings)
    assert back.late == rings.late == 2
    assert back.to_bytes() == rings.to_bytes()
    later = ticks_from_table(make_bars("A", SESSIONS[2]))
    assert by_key(back, back.apply(later, SESSIONS)) == by_key(rings, rings.apply(later, SESSIONS))


def test_an_empty_blob_comes_back_empty() -> None:
    back = Rings.from_bytes(Rings.empty((), WINDOW).to_bytes(), WINDOW)
    assert (back.tickers, back.rows.shape) == ((), (0, WINDOW, 2))


def test_a_blob_of_another_window_is_refused() -> None:
    with pytest.raises(ServingError, match=r"written for a window of 5 minutes of log_return,log_volume, the model"):
        Rings.from_bytes(fed().to_bytes(), 6)


def test_selected_rings_are_those_of_the_tickers_and_unknown_ones_start_empty() -> None:
    rings = fed()
    chosen = rings.select(["NEW", "B"])
    assert_same(chosen.select(["B"]), rings.select(["B"]))
    assert chosen.held.tolist() == [0, rings.held[1]]
    assert chosen.last_ts.tolist()[0] < 0
    chosen.rows[:] = 7
    assert not (rings.rows == 7).any()


def test_joined_rings_hold_the_one_and_then_the_other() -> None:
    rings = fed()
    joined = rings.select(["A"]).joined(rings.select(["B", "NEVER"]))
    assert_same(joined, rings)
    assert rings.joined(rings.select([])).late == rings.late
