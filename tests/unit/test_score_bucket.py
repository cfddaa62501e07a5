"""What a Spark worker does with one bucket of tickers: ticks and state in, state and predictions out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from app import contract
from app.dataset.spec import Spec
from app.errors import ServingError
from app.serving.ring_blob import pack, unpack
from app.serving.rings import Rings
from app.serving.score_bucket import OUTPUT_SCHEMA, StreamPlace, bucket_scorer
from app.serving.ticks import columns_of, ticks_from_table
from app.serving.warm import WARM_SESSIONS, fetch_warm_state, read_warm_state, write_warm_state
from app.storage import Bucket
from app.tables import put_table
from tests.fakes import FakeS3, FakeState, make_bars, make_sessions
from tests.models import plain_spec, tiny_onnx

WINDOW = 3
SESSIONS = make_sessions(6, 6, 6, 6)
TODAY = SESSIONS[-1]
SPEC = plain_spec(WINDOW, (1, 5), target_std=1e-4)
WATERMARK = 2
PLACE = StreamPlace("r", "market", "models", frozenset("ABC"), SESSIONS, TODAY.open_ts, WATERMARK)
ALL_FEATURES = plain_spec(WINDOW, features=contract.FEATURES, target_std=1e-9)


@pytest.fixture(autouse=True)
def _model(s3: FakeS3) -> None:
    publish(SPEC)


def publish(spec: Spec) -> None:
    models = Bucket("models")
    onnx = tiny_onnx(WINDOW, len(spec.horizons_min), len(spec.features))
    models.put(contract.model_key("m", contract.MODEL_ONNX), onnx)
    models.put_json(contract.model_key("m", contract.MODEL_SPEC), spec.to_json())


def ticks(ticker: str, *minutes: int) -> pd.DataFrame:
    """Ticks of today as the source gives them, each ticker in polls of its own."""
    frame: pd.DataFrame = columns_of(make_bars(ticker, TODAY, minutes)).to_pandas().assign(model_id="m")
    return frame


def scored(state: FakeState, *frames: pd.DataFrame) -> list[dict[Any, Any]]:
    """The predictions; what the bucket says of its ticks comes last."""
    found, summary = bucket_scorer(PLACE)((0,), iter(frames), state)
    assert list(found) == list(summary) == [column.split()[0] for column in OUTPUT_SCHEMA.split(", ")]
    assert set(found["summary"]) <= {""}
    (told,) = summary["summary"]
    assert json.loads(told)["ticks"] == sum(map(len, frames))
    rows: list[dict[Any, Any]] = found.to_dict("records")
    return rows


def test_each_completed_window_gives_one_prediction_for_each_horizon() -> None:
    found = scored(FakeState(), ticks("A", 0, 1, 2, 3), ticks("B", 0, 2))
    assert [(row["ticker"], row["as_of"] - TODAY.open_ts, row["horizon_min"]) for row in found] == [
        (ticker, second, horizon) for ticker, second in (("A", 120), ("B", 120), ("A", 180)) for horizon in (1, 5)
    ]


def test_a_prediction_is_a_mean_return_and_prices_that_follow_from_the_last_one() -> None:
    found = scored(FakeState(), ticks("A", 0, 1, 2))
    bars = make_bars("A", TODAY, [0, 1, 2])
    close, volume = bars["close"].to_numpy(), bars["volume"].to_numpy()
    summed = np.log(close[2] / bars["open"][0].as_py()) + 10 * np.log1p(volume[:3]).sum()
    for times, row in zip((1, 2), found, strict=True):  # the tiny network's second horizon is twice its first
        returns = times * 1e-4 * (summed + np.array([0, -1, 0, 1]))
        assert row["predicted_return"] == pytest.approx(returns[0], rel=1e-5)
        prices = [row[name] for name in ("predicted_price", "price_p10", "price_p50", "price_p90")]
        assert prices == pytest.approx(close[2] * np.exp(returns))
        assert (row["last_price"], row["carried_minutes"], row["model_id"]) == (close[2], 0, "m")


def test_quantiles_are_those_that_validation_calibrated() -> None:
    publish(replace(SPEC, calibration=((0.5, 0.0, 1.0), (0.0, 0.0, 0.0))))  # in widths of p90 - p10, here 2
    calibrated, plain = scored(FakeState(), ticks("A", 0, 1, 2))
    returns = [np.log(calibrated[name] / calibrated["last_price"]) for name in ("price_p10", "price_p50", "price_p90")]
    middle = calibrated["predicted_return"]
    assert returns == pytest.approx([middle, middle, middle + 3e-4], rel=1e-5)
    assert np.log(plain["price_p10"] / plain["last_price"]) == pytest.approx(2 * middle - 2e-4, rel=1e-5)


def test_a_stream_without_a_window_yet_predicts_nothing_in_the_same_columns() -> None:
    assert scored(FakeState(), ticks("A", 0, 1)) == []


def test_bars_of_tickers_that_the_run_did_not_plan_and_of_days_before_leave_no_trace() -> None:
    """A Kinesis stream holds what other runs fed, and what anybody else puts there."""
    state, alone = FakeState(), FakeState()
    yesterday = columns_of(make_bars("A", SESSIONS[-2], [0, 1, 2])).to_pandas().assign(model_id="m")
    _, summary = bucket_scorer(PLACE)((0,), [ticks("A", 0, 1, 2), ticks("UNKNOWN", 0, 1), yesterday], state)
    scored(alone, ticks("A", 0, 1, 2))
    assert state.get == alone.get
    told = json.loads(summary["summary"][0])
    assert (told["ticks"], told["counts"]["skipped"]) == (8, 5)


def test_a_model_of_all_features_is_fed_all_of_them() -> None:
    publish(ALL_FEATURES)
    (row,) = scored(FakeState(), ticks("A", 1, 2))
    rings = Rings.empty(("A",), ALL_FEATURES, WATERMARK)
    ready, _ = rings.apply(ticks_from_table(columns_of(make_bars("A", TODAY, [1, 2]))), SESSIONS)
    assert ready.rows[0, :, -1].tolist() == [0, 1, 2]  # minutes of the session
    weighed = (ready.rows[0] * 10.0 ** np.arange(7)).sum()
    assert row["predicted_return"] == pytest.approx(weighed * 1e-9, rel=1e-4)


def test_state_goes_on_where_the_micro_batch_before_ended() -> None:
    state, whole = FakeState(), FakeState()
    parts = [scored(state, ticks("A", 0, 1)), scored(state, ticks("A", 2)), scored(state, ticks("A", 3, 5))]
    assert [len(part) for part in parts] == [0, 1 * 2, 2 * 2]
    frame = pd.concat([ticks("A", 0, 1), ticks("A", 2), ticks("A", 3, 5)])
    assert [row for part in parts for row in part] == scored(whole, frame)
    assert state.get == whole.get


def test_a_repeated_micro_batch_gives_the_same_predictions_and_the_same_state() -> None:
    before = FakeState()
    scored(before, ticks("A", 0, 1, 2))
    first, again = FakeState(before.get), FakeState(before.get)
    assert scored(first, ticks("A", 3)) == scored(again, ticks("A", 3)) != []
    assert first.get == again.get


def test_a_warm_stream_predicts_from_the_first_minute_on() -> None:
    market = Bucket("market")
    for session in SESSIONS[:-1]:
        put_table(market, contract.bars_key(session.day, "s"), make_bars("A", session))
    write_warm_state("r", market, SESSIONS, TODAY, ["A", "B"], SPEC, WATERMARK)
    found = scored(FakeState(), ticks("A", 0, 1, 2, 3), ticks("B", 0))
    assert {row["ticker"] for row in found} == {"A"}
    assert [row["carried_minutes"] for row in found] == [2, 2, 1, 1, 0, 0, 0, 0]


def test_a_ticker_that_comes_later_starts_warm_too() -> None:
    market = Bucket("market")
    put_table(
        market, contract.bars_key(SESSIONS[2].day, "s"), pa.concat_tables([make_bars(t, SESSIONS[2]) for t in "AB"])
    )
    write_warm_state("r", market, SESSIONS, TODAY, ["A", "B"], SPEC, WATERMARK)
    state = FakeState()
    scored(state, ticks("A", 0))
    assert [row["ticker"] for row in scored(state, ticks("A", 1), ticks("B", 1))] == ["A", "A", "B", "B"]
    assert unpack(state.get[0], SPEC).tickers == ("A", "B")


def test_the_warm_state_is_that_of_the_sessions_just_before() -> None:
    market = Bucket("market")
    for session in SESSIONS:
        put_table(market, contract.bars_key(session.day, "s"), make_bars("A", session))
    put_table(market, contract.bars_key(SESSIONS[0].day, "t"), make_bars("LONG-AGO", SESSIONS[0]))
    write_warm_state("r", market, SESSIONS, TODAY, ["A", "LONG-AGO"], SPEC, WATERMARK)
    expected = Rings.empty(["A", "LONG-AGO"], SPEC, WATERMARK)
    for session in SESSIONS[-1 - WARM_SESSIONS : -1]:
        expected.apply(ticks_from_table(columns_of(make_bars("A", session))), SESSIONS)
    assert fetch_warm_state("market", "r") == pack(expected)


def test_the_warm_state_knows_the_market_of_all_tickers_of_the_plan() -> None:
    market, before = Bucket("market"), SESSIONS[-2]
    bars = pa.concat_tables([make_bars(ticker, before) for ticker in "ABC"])
    put_table(market, contract.bars_key(before.day, "s"), bars)
    rings = write_warm_state("r", market, SESSIONS, TODAY, ["A", "B"], ALL_FEATURES, WATERMARK)
    rows = np.roll(rings.rows, -rings.position[0], axis=1)[:, -WINDOW:]
    known = rows[:, :, contract.FEATURES.index(contract.FEATURE_MARKET_RETURN)]
    two = [np.log(b["close"].to_numpy() / b["open"].to_numpy()) for b in (make_bars(t, before) for t in "AB")]
    assert known[0].tolist() == known[1].tolist() == pytest.approx(np.mean(two, axis=0)[-WINDOW:], rel=1e-6)


def test_a_warm_state_of_another_model_is_refused() -> None:
    write_warm_state("r", Bucket("market"), SESSIONS, TODAY, ["A"], ALL_FEATURES, WATERMARK)
    with pytest.raises(ServingError, match="the model takes 3 of log_return,log_volume: start the stream with a new"):
        scored(FakeState(), ticks("A", 0))


def test_without_earlier_bars_or_without_a_warm_state_the_stream_starts_cold() -> None:
    assert read_warm_state("market", "r", SPEC) is None
    rings = write_warm_state("r", Bucket("market"), SESSIONS, TODAY, ["A"], SPEC, WATERMARK)
    assert rings.held.tolist() == [0]
