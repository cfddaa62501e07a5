"""The stream's windows: those of the dataset, bit for bit, however the bars arrive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given, settings
from hypothesis import strategies as st

from app import contract
from app.dataset.build import build_dataset
from app.dataset.cut import cut_sessions
from app.dataset.features import Minutes
from app.dataset.grid import make_grid
from app.dataset.spec import Spec
from app.dataset.windows import window_set
from app.serving.ring_blob import pack, unpack
from app.serving.rings import ReadyWindows, Rings
from app.serving.ticks import TickCounts, Ticks, columns_of, ticks_from_table
from app.sessions import Session, sessions_between
from app.settings import DatasetSettings
from tests.fakes import make_bars, make_sessions, market_bars, with_column
from tests.models import plain_spec

WINDOW, HORIZON, WATERMARK = 5, 2, 4
SESSIONS = make_sessions(20, 14, 20, 20)
PROFILE = np.random.default_rng(5).normal(0, 1, contract.SESSION_MINUTES).tolist()
SPEC = plain_spec(WINDOW, features=contract.FEATURES, volume_profile=PROFILE)

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


def polled(bars: pa.Table) -> Ticks:
    """The bars as the ticks of one poll."""
    return ticks_from_table(columns_of(bars))


def streamed(bars: pa.Table, sessions: Sequence[Session], spec: Spec, cuts: Sequence[int] = ()) -> Windows:
    """Windows of bars in order of time, applied in micro-batches cut before these rows; state travels as a blob."""
    rows = columns_of(bars).sort_by([("ts", "ascending"), ("ticker", "ascending")])
    blob = pack(Rings.empty(sorted(set(rows["ticker"].to_pylist())), spec, WATERMARK))
    found: Windows = {}
    for first, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        rings = unpack(blob, spec)
        ready, counts = rings.apply(ticks_from_table(rows.slice(first, end - first)), sessions)
        found |= by_key(rings, ready)
        assert counts == TickCounts()
        blob = pack(rings)
    return found


def of_grids(bars: pa.Table, sessions: Sequence[Session], spec: Spec) -> Windows:
    """The same from the dataset's grids: each ticker's sessions one after the other."""
    pieces, places = cut_sessions(bars, sessions), [contract.FEATURES.index(name) for name in spec.features]
    found: Windows = {}
    for ticker in sorted({ticker for ticker, _ in pieces}):
        before = np.empty((0, len(places)), np.float32)
        for session in sessions:
            if (ticker, session.day) not in pieces:
                continue
            grid = make_grid(ticker, session, pieces[ticker, session.day], np.array(spec.volume_profile))
            rows = np.concatenate([before, grid.features[:, places]])
            for minute in np.flatnonzero(grid.observed):
                end = len(before) + int(minute) + 1
                if end >= spec.window_min:
                    window, carried = rows[end - spec.window_min : end], max(0, spec.window_min - int(minute) - 1)
                    key = ticker, session.open_ts + 60 * int(minute)
                    found[key] = window.tobytes(), float(grid.close[minute]), carried
            before = rows
    return found


def assert_windows_are_those_of_the_dataset(
    bars: pa.Table, sessions: Sequence[Session], wanted: DatasetSettings
) -> int:
    """Compare every window of the dataset, in all features, with the stream's; returns how many there were."""
    dataset = build_dataset(bars, sessions, wanted)
    assert any(dataset.spec.volume_profile)
    profile = dataset.spec.volume_profile
    spec = plain_spec(wanted.window_min, wanted.horizons_min, contract.FEATURES, volume_profile=profile)
    ready = streamed(bars, sessions, spec)
    compared = 0
    for table in dataset.splits.values():
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
        window_min=WINDOW, horizons_min=(1, HORIZON), validation_days=1, test_days=1, max_filled_share=0.9
    )
    assert assert_windows_are_those_of_the_dataset(bars, SESSIONS, wanted) > 60


def test_windows_of_a_real_session_are_those_of_the_dataset(real_bars: pa.Table) -> None:
    sessions = sessions_between(date(2026, 3, 20), date(2026, 3, 24))  # after the days of faulty volumes
    since = pa.scalar(sessions[0].open_ts * 1000).cast(real_bars["ts"].type)
    bars = real_bars.filter(pc.greater_equal(real_bars["ts"], since))
    wanted = DatasetSettings(validation_days=1, test_days=1, max_filled_share=0.99)
    built = assert_windows_are_those_of_the_dataset(bars, sessions, wanted)
    assert built > 35 * 326 * 2


@settings(max_examples=100)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    window=st.integers(2, 8),
    features=st.lists(st.sampled_from(contract.FEATURES), min_size=1, max_size=7, unique=True),
    cuts=st.lists(st.integers(1, 60), max_size=6, unique=True).map(sorted),
    data=st.data(),
)
def test_every_window_is_the_end_of_its_tickers_sessions_whatever_minutes_lack(
    lengths: list[int], window: int, features: list[str], cuts: list[int], data: st.DataObject
) -> None:
    sessions = make_sessions(*lengths)
    bars = pa.concat_tables(
        make_bars(ticker, session, sorted(data.draw(st.sets(st.integers(0, session.minutes - 1)))))
        for ticker in ("A", "B", "C")
        for session in sessions
    )
    spec = plain_spec(window, features=tuple(features), volume_profile=PROFILE)
    found = streamed(bars, sessions, spec, [cut for cut in cuts if cut < len(bars)])
    assert found == of_grids(bars, sessions, spec)


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(1, 100), max_size=12, unique=True).map(sorted))
def test_however_bars_are_cut_into_micro_batches_the_windows_are_the_same(cuts: list[int]) -> None:
    bars = market_bars(["A", "B", "GAPPY"], SESSIONS[:2], gaps={"GAPPY": 3})
    assert streamed(bars, SESSIONS, SPEC, [c for c in cuts if c < len(bars)]) == streamed(bars, SESSIONS, SPEC)


@settings(max_examples=15)
@given(order=st.permutations(range(40)))
def test_the_order_within_a_micro_batch_does_not_matter(order: list[int]) -> None:
    bars = market_bars(["A", "B"], SESSIONS[:1])
    rings = Rings.empty(("A", "B"), SPEC, WATERMARK)
    ticks = ticks_from_table(columns_of(bars.take(order)).take(order))
    assert by_key(rings, rings.apply(ticks, SESSIONS)[0]) == streamed(bars, SESSIONS, SPEC)


# --- one ticker, by hand -------------------------------------------------------------------------


def ticks(session: Session, *minutes: int, closes: Sequence[float] | None = None) -> pa.Table:
    return make_bars("A", session, minutes, closes=closes, volumes=[0] * len(minutes))


def rings_of_a() -> Rings:
    return Rings.empty(("A",), SPEC, WATERMARK)


def returns_of(ready: ReadyWindows) -> list[list[float]]:
    returns: list[list[float]] = np.round(ready.rows[:, :, 0], 5).tolist()
    return returns


def test_a_window_is_ready_from_its_last_bar_on_and_holds_one_row_for_each_minute() -> None:
    session, rings = SESSIONS[0], rings_of_a()
    bars = ticks(session, 0, 1, 2, 3, 5, closes=[1, np.e, np.e**3, np.e**3, np.e**7])
    first, _ = rings.apply(polled(bars.slice(0, 4)), SESSIONS)
    assert (len(first.ticker), first.rows.shape) == (0, (0, WINDOW, 7))
    ready, _ = rings.apply(polled(bars.slice(4)), SESSIONS)
    assert returns_of(ready) == [[1, 2, 0, 0, 4]]  # minute 4 lacks: no return, and the next one spans it
    assert ready.as_of.tolist() == [session.open_ts + 300]
    assert ready.last_price.tolist() == [np.e**7]
    assert ready.carried.tolist() == [0]


def test_a_session_is_filled_to_its_close_and_the_next_opens_without_the_night() -> None:
    first, second = make_sessions(6, 6)
    rings = rings_of_a()
    rings.apply(polled(ticks(first, 0, 1, 2, 3, closes=[1, np.e, np.e**2, np.e**3])), (first, second))
    morning = with_column(ticks(second, 1, 2, closes=[np.e**9, np.e**10]), "open", [np.e**8, 1.0])
    ready, _ = rings.apply(polled(morning), (first, second))
    # Minutes 2 and 3 traded, 4 and 5 did not; then the next session's 0, which did not, and 1, from its open.
    assert returns_of(ready) == [[1, 0, 0, 0, 1], [0, 0, 0, 1, 1]]
    assert ready.carried.tolist() == [3, 2]


def test_carried_minutes_run_out_one_a_minute() -> None:
    first, second = SESSIONS[:2]
    rings = rings_of_a()
    rings.apply(polled(ticks(first, *range(20))), SESSIONS)
    ready, _ = rings.apply(polled(ticks(second, *range(8))), SESSIONS)
    assert ready.carried.tolist() == [4, 3, 2, 1, 0, 0, 0, 0]


def test_carried_minutes_stay_until_the_window_is_full() -> None:
    short, second = make_sessions(3, 6)
    rings = rings_of_a()
    rings.apply(polled(ticks(short, 0, 1, 2)), (short, second))
    ready, _ = rings.apply(polled(ticks(second, 0, 1, 2)), (short, second))
    assert ready.carried.tolist() == [3, 2]


def test_a_gap_longer_than_the_window_leaves_nothing_of_what_was_before() -> None:
    session, rings = SESSIONS[0], rings_of_a()
    ready, _ = rings.apply(polled(ticks(session, 0, 19, closes=[1, np.e])), SESSIONS)
    assert returns_of(ready) == [[0, 0, 0, 0, 1]]
    assert ready.carried.tolist() == [0]


def test_a_bar_that_is_known_changes_nothing() -> None:
    rings = rings_of_a()
    bars = ticks(SESSIONS[0], 0, 1, 2, 4)
    _, counts = rings.apply(polled(pa.concat_tables([bars, bars.slice(1, 2)])), SESSIONS)
    assert counts == TickCounts(duplicate=2)
    before = pack(rings)
    ready, counts = rings.apply(polled(bars.slice(1, 3)), SESSIONS)
    assert (len(ready.ticker), counts) == (0, TickCounts(duplicate=3))
    assert pack(rings) == before


def test_a_late_bar_takes_its_place_and_gives_the_window_that_was_missing() -> None:
    bars = ticks(SESSIONS[0], 0, 1, 2, 3, 5, 6, closes=np.exp([1, 3, 6, 10, 15, 21]).tolist())
    late = ticks(SESSIONS[0], 4, closes=[np.exp(13)])
    rings, sorted_ = rings_of_a(), rings_of_a()
    rings.apply(polled(bars), SESSIONS)
    ready, counts = rings.apply(polled(late), SESSIONS)
    assert counts == TickCounts()
    assert ready.as_of.tolist() == [SESSIONS[0].open_ts + 240]
    assert ready.last_price.tolist() == [np.exp(13)]
    assert returns_of(ready)[0][1:] == [2, 3, 4, 3]
    sorted_.apply(polled(pa.concat_tables([bars, late])), SESSIONS)
    assert returns_of(rings.apply(polled(ticks(SESSIONS[0], 7, closes=[np.exp(22)])), SESSIONS)[0]) == [[4, 3, 2, 6, 1]]


def test_a_revised_bar_replaces_the_first_and_gives_no_second_window() -> None:
    rings = rings_of_a()
    rings.apply(polled(ticks(SESSIONS[0], 0, 1, 2, 3, 4, closes=np.exp([1, 2, 3, 4, 5]).tolist())), SESSIONS)
    ready, counts = rings.apply(polled(ticks(SESSIONS[0], 3, closes=[np.exp(4.5)])), SESSIONS)
    assert (len(ready.ticker), counts) == (0, TickCounts(revised=1))
    ready, _ = rings.apply(polled(ticks(SESSIONS[0], 5, closes=[np.exp(6)])), SESSIONS)
    assert returns_of(ready) == [[1, 1, 1.5, 0.5, 1]]


def test_of_two_bars_for_a_minute_in_one_micro_batch_the_later_poll_counts() -> None:
    rings = rings_of_a()
    polls = [columns_of(ticks(SESSIONS[0], 0, closes=[close]), poll) for close, poll in ((2.0, 1), (3.0, 0))]
    _, counts = rings.apply(ticks_from_table(pa.concat_tables(polls)), SESSIONS)
    assert counts == TickCounts(revised=1)
    assert rings.last_close.tolist() == [2.0]


def test_a_first_bar_that_comes_late_opens_the_session() -> None:
    rings, spec = rings_of_a(), plain_spec(WINDOW, features=(contract.FEATURE_SESSION_RETURN,))
    rings = Rings.empty(("A",), spec, WATERMARK)
    opened = with_column(ticks(SESSIONS[0], 2, 4, closes=np.exp([3, 5]).tolist()), "open", np.exp([2.0, 4.0]).tolist())
    rings.apply(polled(opened), SESSIONS)
    rings.apply(polled(with_column(ticks(SESSIONS[0], 1, closes=[np.exp(2)]), "open", [np.exp(1.0)])), SESSIONS)
    ready, _ = rings.apply(polled(ticks(SESSIONS[0], 5, closes=[np.exp(9)])), SESSIONS)
    assert returns_of(ready) == [[1, 2, 2, 4, 8]]


def test_what_is_older_than_the_watermark_is_counted_and_changes_nothing() -> None:
    rings = rings_of_a()
    rings.apply(polled(ticks(SESSIONS[0], 0, 1, 2, 7)), SESSIONS)
    before = pack(rings)
    ready, counts = rings.apply(polled(ticks(SESSIONS[0], 3)), SESSIONS)
    assert (len(ready.ticker), counts) == (0, TickCounts(late=1))
    assert pack(rings) == before
    assert rings.apply(polled(ticks(SESSIONS[0], 4)), SESSIONS)[1] == TickCounts()


def test_a_late_bar_of_an_earlier_session_is_dropped() -> None:
    rings = rings_of_a()
    rings.apply(polled(ticks(SESSIONS[1], 0)), SESSIONS)
    before = pack(rings)
    assert rings.apply(polled(ticks(SESSIONS[0], 19)), SESSIONS)[1] == TickCounts(late=1)
    assert pack(rings) == before


def test_bars_outside_of_all_sessions_and_what_is_no_bar_are_skipped() -> None:
    session, rings = SESSIONS[0], rings_of_a()
    before = pack(rings)
    bars = [ticks(session, -1), ticks(session, session.minutes)]
    bars += [
        with_column(ticks(session, 1), name, [bad]) for name, bad in (("close", 0.0), ("high", np.nan), ("low", -1.0))
    ]
    for one in bars:
        assert rings.apply(polled(one), SESSIONS)[1] == TickCounts(skipped=1)
    assert pack(rings) == before


@settings(max_examples=150)
@given(
    lengths=st.lists(st.integers(1, 14), min_size=1, max_size=3),
    watermark=st.integers(1, 6),
    features=st.lists(st.sampled_from(contract.FEATURES), min_size=1, max_size=7, unique=True),
    data=st.data(),
)
def test_whatever_comes_late_twice_or_out_of_order_the_state_is_that_of_the_bars_in_order(
    lengths: list[int], watermark: int, features: list[str], data: st.DataObject
) -> None:
    """Each bar is at most `watermark` - 1 minutes late; what is later than that is counted, and changes nothing."""
    sessions = make_sessions(*lengths)
    spec = plain_spec(WINDOW, features=tuple(features), volume_profile=PROFILE)
    bars = pa.concat_tables(
        make_bars(ticker, session, sorted(data.draw(st.sets(st.integers(0, session.minutes - 1)))))
        for ticker in ("A", "B")
        for session in sessions
    )
    rows = columns_of(bars).sort_by([("ts", "ascending"), ("ticker", "ascending")])
    in_order = Rings.empty(("A", "B"), spec, watermark)
    expected, _ = in_order.apply(ticks_from_table(rows), sessions)

    copies = data.draw(st.lists(st.sampled_from(range(len(rows))), max_size=20)) if len(rows) else []
    sent = [*range(len(rows)), *copies]
    delays = data.draw(st.lists(st.integers(0, watermark - 1), min_size=len(sent), max_size=len(sent)))
    arrival = in_order_of_arrival(rows["ts"].to_numpy(), sent, delays, sessions)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(arrival)), max_size=8)))
    blob, seen, dropped = pack(Rings.empty(("A", "B"), spec, watermark)), [], 0
    for first, end in zip([0, *cuts], [*cuts, len(arrival)], strict=True):
        rings = unpack(blob, spec)
        ready, counts = rings.apply(ticks_from_table(rows.take(pa.array(arrival[first:end], pa.int64()))), sessions)
        assert (counts.revised, counts.skipped) == (0, 0)
        dropped += counts.late + counts.duplicate
        seen += [(ticker, int(at)) for ticker, at in zip(ready.ticker, ready.as_of, strict=True)]
        blob = pack(rings)
    assert blob == pack(in_order)
    assert dropped == len(copies)
    assert sorted(seen) == sorted((ticker, int(at)) for ticker, at in zip(expected.ticker, expected.as_of, strict=True))


@settings(max_examples=150)
@given(
    watermark=st.integers(1, 4),
    sent=st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 13), st.integers(0, 2)), min_size=1, max_size=30),
    data=st.data(),
)
def test_what_is_late_and_what_is_taken_does_not_depend_on_where_micro_batches_are_cut(
    watermark: int, sent: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    """Bars of two sessions in any order, in up to three versions, each in a poll of its own. Nor does any forecast."""
    sessions = make_sessions(7, 7)
    bars = [
        make_bars(ticker, sessions[minute // 7], [minute % 7], closes=[1.0 + version])
        for ticker, minute, version in sent
    ]
    polls = [columns_of(bar, number) for number, bar in enumerate(bars)]
    found = []
    for cuts in ([], sorted(data.draw(st.sets(st.integers(1, len(polls)), max_size=8)))):
        rings, counted = Rings.empty(("A", "B"), SPEC, watermark), TickCounts()
        seen = []
        for first, end in zip([0, *cuts], [*cuts, len(polls)], strict=True):
            if first < end:
                ready, counts = rings.apply(ticks_from_table(pa.concat_tables(polls[first:end])), sessions)
                counted = counted.plus(**asdict(counts))
                windows = zip(ready.ticker, ready.as_of, ready.last_price, ready.rows, strict=True)
                seen += [(ticker, int(at), price, rows.tobytes()) for ticker, at, price, rows in windows]
        found.append((pack(rings), counted, sorted(seen)))
    assert found[0] == found[1]


def in_order_of_arrival(
    ts: Minutes, sent: Sequence[int], delays: Sequence[int], sessions: Sequence[Session]
) -> list[int]:
    """The numbers of the bars in `sent`, each delayed by so many minutes, but not over the end of its session."""
    closes = {s.open_ts: s.close_ts for s in sessions}
    opened = [max(o for o in closes if o <= ts[i]) for i in sent]
    came = [min(int(ts[i]) + 60 * delay, closes[o] - 1) for i, delay, o in zip(sent, delays, opened, strict=True)]
    return [sent[place] for place in sorted(range(len(sent)), key=came.__getitem__)]
