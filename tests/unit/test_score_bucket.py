"""What a Spark worker does with one bucket of tickers: ticks and state in, state and predictions out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from app import contract
from app.dataset.spec import Spec, TickerScale
from app.serving.rings import Rings
from app.serving.score_bucket import OUTPUT_SCHEMA, StreamPlace, bucket_scorer
from app.serving.warm import WARM_SESSIONS, read_warm_state, ticks_from_table, write_warm_state
from app.storage import Bucket
from app.tables import put_table
from tests.fakes import FakeS3, FakeState, make_bars, make_sessions, tiny_onnx

WINDOW = 3
SESSIONS = make_sessions(6, 6, 6, 6)
TODAY = SESSIONS[-1]
SPEC = Spec(WINDOW, 5, contract.FEATURES, {}, TickerScale((0.0, 0.0), (1.0, 1.0), 1e-4), "f")
PLACE = StreamPlace("r", "market", "models", "m", WINDOW, SESSIONS)


@pytest.fixture(autouse=True)
def _model(s3: FakeS3) -> None:
    models = Bucket("models")
    models.put(contract.model_key("m", contract.MODEL_ONNX), tiny_onnx(WINDOW))
    models.put_json(contract.model_key("m", contract.MODEL_SPEC), SPEC.to_json())


def ticks(ticker: str, *minutes: int) -> pd.DataFrame:
    """Ticks of today as the source gives them."""
    bars = make_bars(ticker, TODAY, minutes)
    frame = bars.drop(["high", "low"]).to_pandas()
    return frame.assign(ts=[TODAY.open_ts + 60 * m for m in minutes], volume=frame["volume"].astype(float))


def scored(state: FakeState, *frames: pd.DataFrame) -> list[dict[Any, Any]]:
    (found,) = bucket_scorer(PLACE)((0,), iter(frames), state)
    assert list(found) == [column.split()[0] for column in OUTPUT_SCHEMA.split(", ")]
    rows: list[dict[Any, Any]] = found.to_dict("records")
    return rows


def test_each_completed_window_gives_one_prediction() -> None:
    found = scored(FakeState(), ticks("A", 0, 1, 2, 3), ticks("B", 0, 2))
    assert [(row["ticker"], row["as_of"] - TODAY.open_ts) for row in found] == [("A", 120), ("B", 120), ("A", 180)]
    bars = make_bars("A", TODAY, [0, 1, 2, 3])
    close, volume = bars["close"].to_numpy(), bars["volume"].to_numpy()
    summed = np.log(close[2] / bars["open"][0].as_py()) + 10 * np.log1p(volume[:3]).sum()
    assert found[0]["predicted_return"] == pytest.approx(summed * 1e-4, rel=1e-5)
    assert found[0]["predicted_price"] == pytest.approx(close[2] * np.exp(found[0]["predicted_return"]))
    assert (found[0]["last_price"], found[0]["horizon_min"], found[0]["model_id"]) == (close[2], 5, "m")


def test_state_goes_on_where_the_micro_batch_before_ended() -> None:
    state, whole = FakeState(), FakeState()
    parts = [scored(state, ticks("A", 0, 1)), scored(state, ticks("A", 2)), scored(state, ticks("A", 3, 5))]
    assert [len(part) for part in parts] == [0, 1, 2]
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
    write_warm_state("r", market, SESSIONS, TODAY, ["A", "B"], WINDOW)
    found = scored(FakeState(), ticks("A", 0, 1, 2, 3), ticks("B", 0))
    assert [(row["ticker"], row["carried_minutes"]) for row in found] == [("A", 2), ("A", 1), ("A", 0), ("A", 0)]


def test_a_ticker_that_comes_later_starts_warm_too() -> None:
    market = Bucket("market")
    put_table(
        market, contract.bars_key(SESSIONS[2].day, "s"), pa.concat_tables([make_bars(t, SESSIONS[2]) for t in "AB"])
    )
    write_warm_state("r", market, SESSIONS, TODAY, ["A", "B"], WINDOW)
    state = FakeState()
    scored(state, ticks("A", 0))
    assert [row["ticker"] for row in scored(state, ticks("A", 1), ticks("B", 1))] == ["A", "B"]
    assert Rings.from_bytes(state.get[0], WINDOW).tickers == ("A", "B")


def test_the_warm_state_is_that_of_the_sessions_just_before() -> None:
    market = Bucket("market")
    for session in SESSIONS:
        put_table(market, contract.bars_key(session.day, "s"), make_bars("A", session))
    put_table(market, contract.bars_key(SESSIONS[0].day, "t"), make_bars("LONG-AGO", SESSIONS[0]))
    write_warm_state("r", market, SESSIONS, TODAY, ["A", "LONG-AGO"], WINDOW)
    expected = Rings.empty(["A", "LONG-AGO"], WINDOW)
    for session in SESSIONS[-1 - WARM_SESSIONS : -1]:
        expected.apply(ticks_from_table(make_bars("A", session)), SESSIONS)
    assert read_warm_state("market", "r", WINDOW).to_bytes() == expected.to_bytes()


def test_without_earlier_bars_or_without_a_warm_state_the_stream_starts_cold() -> None:
    assert read_warm_state("market", "r", WINDOW).tickers == ()
    rings = write_warm_state("r", Bucket("market"), SESSIONS, TODAY, ["A"], WINDOW)
    assert rings.held.tolist() == [0]
