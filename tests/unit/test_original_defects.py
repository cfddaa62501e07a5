"""The nine defects of the 2021 system, and that ours has none of them: one test or more for each.

1 target six minutes ahead             here; test_windows.py against a plain double loop
2 random split, another on each rank   here; test_split.py, test_part.py
3 scaling over test days and tickers   here; test_build.py, test_spec.py
4 no broadcast, no checkpoint          tests/pipeline/test_training.py: it takes real MPI ranks
5 lost days, tickers that vanish       here; test_plan.py, test_collect.py, test_shard.py, test_coverage.py
6 a concatenation for each window      here; test_windows.py
7 one model call a ticker, `eval`      here; test_score_bucket.py, test_rings.py, test_scoring.py
8 no baseline                          here; test_evaluate.py
9 wrong number of steps                here; test_part.py, tests/pipeline/test_training.py
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pyarrow as pa
import pytest

from app import contract
from app.dataset.build import Dataset, build_dataset
from app.dataset.windows import WindowSet, window_set
from app.errors import UniverseError, YahooError
from app.ingest import collect
from app.ingest.answers import DayAnswer
from app.ingest.collect import collect_shard
from app.ingest.counts import FetchCount
from app.ingest.coverage import write_coverage
from app.ingest.plan import make_plan
from app.ingest.report import make_report
from app.serving.score_bucket import StreamPlace, bucket_scorer
from app.sessions import Session, sessions_between, utc
from app.settings import DatasetSettings, IngestSettings
from app.storage import Bucket
from app.training.evaluate import HorizonMetrics, evaluate
from app.training.part import Part
from tests.fakes import (
    FIRST_DAY,
    FakeS3,
    FakeState,
    bucket,
    make_bars,
    make_sessions,
    market_bars,
    with_column,
)
from tests.models import CountingSession, plain_spec
from tests.yahoo import FakeYahoo, walk

WINDOW, HORIZON = 60, 5
SESSIONS = make_sessions(150, 150, 150, 150)
OF_ONE_TICKER = [n for n in contract.FEATURES if n not in {"relative_volume", "market_return"}]


def built(bars: pa.Table) -> Dataset:
    return build_dataset(
        bars, SESSIONS, DatasetSettings(window_min=WINDOW, horizons_min=(HORIZON,), validation_days=1, test_days=1)
    )


def windows_of(dataset: Dataset, split: str) -> WindowSet:
    return window_set(dataset.splits[split], dataset.spec.select(contract.DEFAULT_FEATURES), 0.2)


def test_defect_1_the_target_lies_five_minutes_after_the_last_input_and_not_six() -> None:
    closes = {session: 100 + np.arange(150.0) for session in SESSIONS}  # minute m closes at 100 + m USD
    windows = windows_of(built(pa.concat_tables(make_bars("A", s, closes=closes[s]) for s in SESSIONS)), "test")
    assert windows.last_price[0] == 100 + 59
    assert windows.future_price[0] == 100 + 64
    assert windows.targets[0] == pytest.approx(np.log(164 / 159))
    assert (windows.future_price[:, 0] - windows.last_price == HORIZON).all()


def test_defect_2_no_window_of_one_split_shares_a_bar_with_another_and_all_ranks_split_alike() -> None:
    dataset = built(market_bars(["A", "B"], SESSIONS))
    seen = {
        name: {(w.tickers[code], int(last) - 60 * back) for code, last in zip(w.ticker, w.as_of, strict=True)
               for back in range(1 - WINDOW - HORIZON, WINDOW)}
        for name in ("train", "validation", "test")
        for w in [windows_of(dataset, name)]
    }  # fmt: skip
    assert not seen["train"] & seen["validation"]
    assert not (seen["train"] | seen["validation"]) & seen["test"]
    newest = {name: max(ts for _, ts in bars) for name, bars in seen.items()}
    assert newest["train"] < newest["validation"] < newest["test"]
    # The split is stored; what differs between ranks is only which of the same windows they take.
    assert built(market_bars(["A", "B"], SESSIONS)).splits["test"].equals(dataset.splits["test"])
    train = windows_of(dataset, "train")
    taken = [
        {(int(batch.chunk.ticker[i]), int(batch.chunk.as_of[i])) for batch in batches for i in batch.chosen}
        for rank in (0, 1)
        for batches in [Part(train.between, len(train), rank=rank, ranks=2).batches(epoch=0, seed=1, batch=5)]
    ]
    assert not taken[0] & taken[1]
    assert len(taken[0] | taken[1]) == len(train) // 10 * 10


def test_defect_3_scaling_knows_the_training_days_and_one_ticker_alone_and_errors_are_in_usd() -> None:
    bars = market_bars(["A", "B"], SESSIONS)
    later = bars["ts"].cast(pa.int64()).to_numpy() // 1000 >= SESSIONS[2].open_ts
    other = bars["ticker"].to_numpy(zero_copy_only=False) == "B"
    volume = bars["volume"].to_numpy()
    plain = built(bars).spec
    assert built(with_column(bars, "volume", np.where(later, volume * 1000, volume))).spec.scales == plain.scales
    louder = built(with_column(bars, "volume", np.where(other, volume * 1000, volume))).spec
    own, quiet = (spec.select(OF_ONE_TICKER) for spec in (louder, plain))  # not those that look at all tickers
    assert own.scales["A"] == quiet.scales["A"]
    assert louder.scales["B"] != plain.scales["B"]
    assert judged([1.01], last=[200.0], future=[200.0]).mae_usd == pytest.approx(2)


def judged(ratios: list[float], *, last: list[float], future: list[float]) -> HorizonMetrics:
    """Metrics of forecasts of these ratios of the future price to the last one."""
    found = evaluate(
        np.log(ratios)[:, None, None],
        last_price=np.array(last),
        future_price=np.array(future)[:, None],
        as_of=np.arange(len(ratios)) * 60,
        horizons_min=(HORIZON,),
        seed=0,
    )
    return found.horizons[HORIZON]


def test_defect_5_no_day_is_lost_between_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = sessions_between(FIRST_DAY.replace(day=1), FIRST_DAY.replace(day=31))
    plan = make_plan("r", ["A"], sessions, shards=1, request_days=7)
    yahoo = FakeYahoo({"A": walk("A", *sessions)}, utc(sessions[-1].close_ts + 3600))
    monkeypatch.setattr(collect, "_CLIENTS", {"direct": yahoo.client})  # excludes the end of a request, as Yahoo does
    (one,) = collect_shard(plan, plan.shards[0], IngestSettings(), yahoo_url=None, clock=yahoo.clock).values()
    assert (one.report.status, one.report.missing) == ("complete", {})
    assert one.bars.same_as(yahoo.bars["A"])
    assert len(one.bars) == sum(session.minutes for session in sessions)


@pytest.mark.parametrize(
    ("status", "error"), [("failed", YahooError), ("partial", YahooError), ("delisted", UniverseError)]
)
def test_defect_5_no_ticker_vanishes_silently(status: Any, error: type[Exception]) -> None:
    market = bucket()
    plan = make_plan("r", ["A", "LOST"], SESSIONS, shards=1, request_days=7)
    answers = {session.day: DayAnswer(1, True, "") for session in SESSIONS}
    errors = {} if status == "partial" else {session.day: (status, "gone") for session in SESSIONS}
    reports = [
        make_report(ticker, SESSIONS, [], known, wrong, 0.9, FetchCount())
        for ticker, known, wrong in (("A", answers, {}), ("LOST", {}, errors))
    ]
    manifest = {"tickers": [report.to_json() for report in reports]}
    market.put_json(contract.manifest_key("r", plan.shards[0].name), manifest)
    with pytest.raises(error, match="LOST"):
        write_coverage(plan, market, min_coverage=1.0, on_delisted="fail")
    coverage = market.get_json(contract.coverage_key("r"))
    assert [t["ticker"] for t in coverage["tickers"]] == ["A", "LOST"]
    assert coverage["statuses"][status] == 1


def test_defect_6_windows_are_views_of_rows_that_are_held_once(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = windows_of(built(market_bars(["A"], SESSIONS)), "test")
    assert windows.rows.shape == (150, 2)
    views: list[Any] = []
    cut = np.lib.stride_tricks.sliding_window_view

    def watched(*args: Any, **options: Any) -> Any:
        views.append(cut(*args, **options))
        return views[-1]

    monkeypatch.setattr(np.lib.stride_tricks, "sliding_window_view", watched)
    windows.inputs(slice(0, 2))
    assert [view.shape for view in views] == [(150 - WINDOW + 1, 2, WINDOW)]
    assert np.shares_memory(views[0], windows.rows)


def test_defect_6_what_is_copied_grows_as_the_bars_do(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = built(market_bars(["A", "B"], SESSIONS))
    copied: list[int] = []
    concatenate = np.concatenate

    def counting(parts: Any, *args: Any, **options: Any) -> Any:
        joined = concatenate(parts, *args, **options)
        copied.append(joined.size)
        return joined

    monkeypatch.setattr(np, "concatenate", counting)
    test = dataset.splits["test"]
    spec = dataset.spec.select(contract.DEFAULT_FEATURES)
    windows = [window_set(table, spec, 0.2) for table in (test.slice(0, 150), test)]
    monkeypatch.undo()
    assert len(windows[1]) == 2 * len(windows[0])
    assert sum(copied) < 10 * (
        150 + 300
    )  # a concatenation for each window would copy 86 windows' worth, again and again


def score(state: FakeState, session: Session, tickers: list[str], *minutes: int) -> list[str]:
    """Score one micro-batch; returns the tickers of its predictions."""
    place = StreamPlace("r", "market", "models", frozenset(tickers), (session,), session.open_ts, 5)
    rows = [(ticker, session.open_ts + 60 * minute) for minute in minutes for ticker in tickers]
    frame = pd.DataFrame(rows, columns=["ticker", "ts"])
    frame = frame.assign(open=1.0, high=2.0, low=1.0, close=2.0, volume=3.0, market_return=0.0, poll=0, model_id="m")
    found, _ = bucket_scorer(place)((0,), [frame], state)
    return [str(ticker) for ticker in found["ticker"]]


@pytest.fixture
def _published(s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    Bucket("models").put_json(contract.model_key("m", contract.MODEL_SPEC), plain_spec(3).to_json())
    Bucket("models").put(contract.model_key("m", contract.MODEL_ONNX), b"")
    monkeypatch.setattr(onnxruntime, "InferenceSession", CountingSession)


@pytest.mark.usefixtures("_published")
def test_defect_7_the_model_is_called_once_for_all_tickers_of_a_micro_batch() -> None:
    tickers = [f"T{i:03d}" for i in range(500)]
    state = FakeState()
    assert score(state, SESSIONS[0], tickers, 0, 1) == []
    assert score(state, SESSIONS[0], tickers, 2) == tickers
    assert CountingSession.newest.calls == [500]


@pytest.mark.usefixtures("_published")
def test_defect_7_the_state_is_an_arrow_blob_and_a_repeated_update_is_neither_lost_nor_doubled() -> None:
    state = FakeState()
    score(state, SESSIONS[0], ["A"], 0, 1)
    assert pa.ipc.open_stream(io.BytesIO(state.get[0])).read_all()["ticker"].to_pylist() == ["A"]
    crashed = FakeState(state.get)
    assert score(crashed, SESSIONS[0], ["A"], 2) == score(state, SESSIONS[0], ["A"], 2) == ["A"]
    assert crashed.get == state.get
    assert score(state, SESSIONS[0], ["A"], 2) == []  # the same bar again, over the state that has seen it


def test_defect_8_every_forecast_is_compared_with_the_price_that_stays() -> None:
    last, future = [100.0, 50.0], [104.0, 47.0]
    stays = judged([1.0, 1.0], last=last, future=future)
    assert stays.mae_persistence_usd == stays.mae_usd == 3.5
    assert stays.skill == 0
    assert judged([1.04, 0.94], last=last, future=future).skill == pytest.approx(1)


def test_defect_9_step_times_are_over_the_steps_that_were_really_taken() -> None:
    # 775,248 windows in batches of 32 on 4 ranks: 6056 steps and a half, not the 24,226 of one rank.
    train = windows_of(built(market_bars(["A"], SESSIONS)), "train")
    assert Part(train.between, 775_248, rank=0, ranks=4).steps_per_epoch(32) == 6056
    part = Part(train.between, len(train), rank=0, ranks=4)
    taken = list(part.batches(epoch=0, seed=7, batch=4))
    assert len(taken) == part.steps_per_epoch(4) == len(train) // 4 // 4 > 1
