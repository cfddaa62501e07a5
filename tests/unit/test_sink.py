"""Predictions in S3: objects that grow by the micro-batch, the same when one is repeated; and the newest windows'."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import contract
from app.clock import fixed_clock
from app.errors import ServingError
from app.serving.sink import BatchSummary, PredictionSink, next_micro_batch, stored_before
from app.serving.ticks import TickCounts
from app.storage import Bucket
from app.tables import arrow_schema, get_table
from tests.fakes import FakeS3, bucket, make_sessions

MONDAY, TUESDAY = make_sessions(390, 390)
NOW = datetime(2025, 12, 2, 22, 0, tzinfo=UTC)
PRICES = ("predicted_price", "price_p10", "price_p50", "price_p90")


class Batch:
    """What Spark hands to foreachBatch, as far as it is used."""

    def __init__(
        self, *predictions: tuple[str, int, float], horizons: tuple[int, ...] = (5,), model_id: str = "m"
    ) -> None:
        self.rows = [(*row, horizon) for row in predictions for horizon in horizons]
        self.model_id = model_id

    def toArrow(self) -> pa.Table:  # noqa: N802  Spark's name
        """The rows in the stream's schema: ticker, as_of in epoch seconds and predicted return; a horizon each."""
        columns: dict[str, Any] = {
            "ticker": pa.array([ticker for ticker, *_ in self.rows], pa.string()),
            "as_of": pa.array([as_of for _, as_of, *_ in self.rows], pa.int64()),
            "horizon_min": pa.array([horizon for *_, horizon in self.rows], pa.int32()),
            "last_price": pa.array([100.0] * len(self.rows), pa.float64()),
            "predicted_return": pa.array([value for _, _, value, _ in self.rows], pa.float64()),
            **{name: pa.array([100.0] * len(self.rows), pa.float64()) for name in PRICES},
            "carried_minutes": pa.array([0] * len(self.rows), pa.int32()),
            "model_id": pa.array([self.model_id] * len(self.rows), pa.string()),
            "summary": pa.array([""] * len(self.rows), pa.string()),
        }
        table = pa.table(columns)
        return pa.concat_tables([table, self.summaries(table.schema)])

    def summaries(self, schema: pa.Schema) -> pa.Table:
        """Those of two buckets."""
        rows = [
            {field.name: "" if field.type == pa.string() else 0 for field in schema}
            | {"summary": json.dumps({"ticks": number, "counts": counts(number), "scoring_s": number / 10})}
            for number in (1, 2)
        ]
        return pa.Table.from_pylist(rows, schema)


def counts(number: int) -> dict[str, int]:
    """So many of each kind."""
    return asdict(TickCounts(number, number, number, number))


def sink(predictions: Bucket, told: list[BatchSummary] | None = None, full: int = 1) -> PredictionSink:
    """One whose objects take no further micro-batch once they hold `full` rows."""
    heard = told if told is not None else []
    return PredictionSink(predictions, "r", fixed_clock(NOW), full, heard.append)


def at(minute: int, session: Any = TUESDAY) -> int:
    return int(session.open_ts) + 60 * minute


def latest(predictions: Bucket) -> dict[str, tuple[str, float]]:
    rows = predictions.get_json(contract.LATEST_PREDICTIONS_KEY)["predictions"]
    return {row["ticker"]: (row["as_of"], row["predicted_return"]) for row in rows}


BATCH = Batch(("B", at(1), 0.3), ("A", at(1), 0.2), ("A", at(0), 0.1))


def test_a_micro_batch_is_one_object_in_the_contracts_schema_and_in_order() -> None:
    predictions = bucket()
    sink(predictions)(BATCH, 7)
    stored = get_table(predictions, contract.predictions_key(TUESDAY.day, "r", 7))
    assert stored.schema == arrow_schema(contract.PREDICTIONS)
    assert list(zip(stored["ticker"].to_pylist(), stored["predicted_return"].to_pylist(), strict=True)) == [
        ("A", 0.1),
        ("A", 0.2),
        ("B", 0.3),
    ]
    assert stored["as_of"].to_pylist()[0] == datetime(2025, 12, 2, 14, 30, tzinfo=UTC)
    assert set(stored["produced_at"].to_pylist()) == {NOW}


def test_a_repeated_micro_batch_overwrites_its_object() -> None:
    s3 = FakeS3()
    for _ in range(2):  # the second time as after a crash, in a new process
        sink(bucket(s3))(BATCH, 7)
    assert s3.puts[:2] == s3.puts[2:]
    assert len(bucket(s3).keys(f"{contract.PREDICTIONS_PREFIX}dt=")) == 1
    assert latest(bucket(s3))["A"] == ("2025-12-02T14:31:00+00:00", 0.2)


def test_predictions_of_two_days_are_two_objects() -> None:
    predictions = bucket()
    sink(predictions)(Batch(("A", at(0), 0.1), ("A", at(389, MONDAY), 0.2)), 0)
    for session, value in ((MONDAY, 0.2), (TUESDAY, 0.1)):
        table = get_table(predictions, contract.predictions_key(session.day, "r", 0))
        assert table["predicted_return"].to_pylist() == [value]


def test_the_newest_of_each_ticker_is_kept_over_micro_batches_and_restarts() -> None:
    predictions = bucket()
    sink(predictions)(BATCH, 0)
    sink(predictions)(Batch(("A", at(2), 0.4), ("C", at(2), 0.5)), 1)
    assert {ticker: value for ticker, (_, value) in latest(predictions).items()} == {"A": 0.4, "B": 0.3, "C": 0.5}
    document = predictions.get_json(contract.LATEST_PREDICTIONS_KEY)
    assert document["schema_version"] == contract.PREDICTIONS_SCHEMA_VERSION
    assert list(document["predictions"][0]) == [column.name for column in contract.PREDICTIONS]


def newest(predictions: Bucket) -> list[tuple[str, int, str, float]]:
    rows = predictions.get_json(contract.LATEST_PREDICTIONS_KEY)["predictions"]
    return [(row["ticker"], row["horizon_min"], row["model_id"], row["predicted_return"]) for row in rows]


def test_the_newest_are_all_horizons_of_a_ticker_s_newest_window_in_order() -> None:
    predictions = bucket()
    sink(predictions)(Batch(("B", at(1), 0.3), ("A", at(1), 0.2), ("A", at(0), 0.1), horizons=(10, 1)), 0)
    assert newest(predictions) == [("A", 1, "m", 0.2), ("A", 10, "m", 0.2), ("B", 1, "m", 0.3), ("B", 10, "m", 0.3)]
    sink(predictions)(Batch(("B", at(2), 0.4), horizons=(10, 1)), 1)
    assert newest(predictions)[2:] == [("B", 1, "m", 0.4), ("B", 10, "m", 0.4)]


def test_horizons_that_a_newer_model_does_not_have_go_with_the_older_one() -> None:
    predictions = bucket()
    sink(predictions)(Batch(("A", at(0), 0.1), ("B", at(0), 0.1), horizons=(1, 5)), 0)
    sink(predictions)(Batch(("A", at(1), 0.2), horizons=(2,), model_id="m-2"), 1)
    assert newest(predictions) == [("A", 2, "m-2", 0.2), ("B", 1, "m", 0.1), ("B", 5, "m", 0.1)]
    sink(predictions)(Batch(("B", at(0), 0.3), horizons=(5,), model_id="m-2"), 2)  # the same bar, served again
    assert newest(predictions)[1:] == [("B", 5, "m-2", 0.3)]


def test_two_streams_write_the_newest_predictions_beside_each_other() -> None:
    predictions = bucket()
    one, other = sink(predictions), sink(predictions)
    one(Batch(("A", at(0), 0.1), ("B", at(0), 0.1)), 0)
    other(Batch(("B", at(1), 0.2), ("C", at(1), 0.2)), 0)
    one(Batch(("A", at(2), 0.3), ("C", at(0), 0.3)), 1)
    assert [(ticker, value) for ticker, _, _, value in newest(predictions)] == [("A", 0.3), ("B", 0.2), ("C", 0.2)]


def test_a_ticker_that_was_not_predicted_for_a_week_is_left_out() -> None:
    predictions, day_s = bucket(), 86_400
    sink(predictions)(Batch(("A", at(0), 0.1), ("B", at(1), 0.1)), 0)
    sink(predictions)(Batch(("C", at(0) + 7 * day_s, 0.2)), 1)
    assert [ticker for ticker, *_ in newest(predictions)] == ["B", "C"]


def test_a_document_of_another_version_of_the_schema_is_begun_anew() -> None:
    predictions = bucket()
    old = {"ticker": "OLD", "as_of": "2025-12-01T20:59:00+00:00", "predicted_return": 0.1}
    predictions.put_json(contract.LATEST_PREDICTIONS_KEY, {"schema_version": 1, "predictions": [old]})
    sink(predictions)(BATCH, 0)
    assert set(latest(predictions)) == {"A", "B"}


def test_an_older_prediction_does_not_take_the_place_of_a_newer_one() -> None:
    predictions = bucket()
    sink(predictions)(BATCH, 0)
    sink(predictions)(Batch(("A", at(389, MONDAY), 9.0)), 1)
    assert latest(predictions)["A"] == ("2025-12-02T14:31:00+00:00", 0.2)


def test_a_micro_batch_without_predictions_writes_nothing_and_tells_of_its_ticks() -> None:
    s3 = FakeS3()
    told: list[BatchSummary] = []
    sink(bucket(s3), told)(Batch(), 0)
    assert (s3.puts, [(one.predictions, one.newest_ts, one.ticks) for one in told]) == ([], [(0, None, 3)])


def test_what_was_written_is_counted_and_told_with_its_newest_minute_and_the_ticks_of_all_buckets() -> None:
    told: list[BatchSummary] = []
    writer = sink(bucket(), told)
    writer(BATCH, 0)
    writer(Batch(("A", at(2), 0.4)), 1)
    assert told == [
        BatchSummary(number, rows, newest_ts, 3, TickCounts(3, 3, 3, 3), scoring_s=0.2)
        for number, rows, newest_ts in ((0, 3, at(1)), (1, 1, at(2)))
    ]
    assert writer.written == 4


# --- objects that grow ----------------------------------------------------------------------------


def returns_by_object(s3: FakeS3) -> dict[int, list[float]]:
    """By the object's first micro-batch."""
    keys = bucket(s3).keys(contract.PREDICTIONS_PREFIX)
    tables = {contract.predictions_micro_batch(key): get_table(bucket(s3), key) for key in keys}
    return {first: table["predicted_return"].to_pylist() for first, table in tables.items()}


def test_an_object_grows_until_it_is_full_and_the_next_micro_batch_begins_another() -> None:
    s3 = FakeS3()
    writer = sink(bucket(s3), full=4)
    for minute in range(6):
        writer(Batch(("A", at(minute), minute / 10), ("B", at(minute), minute / 10)), minute)
    assert returns_by_object(s3) == {
        0: [0.0, 0.0, 0.1, 0.1],
        2: [0.2, 0.2, 0.3, 0.3],
        4: [0.4, 0.4, 0.5, 0.5],
    }


@settings(max_examples=60)
@given(
    rows=st.lists(st.integers(0, 3), min_size=1, max_size=8),
    full=st.integers(1, 5),
    crashes=st.lists(st.integers(0, 7), max_size=6),
)
def test_however_often_micro_batches_are_repeated_after_a_crash_every_object_is_the_same(
    rows: list[int], full: int, crashes: list[int]
) -> None:
    batches = [Batch(*((ticker, at(i), i / 10) for ticker in "ABC"[:count])) for i, count in enumerate(rows)]
    undisturbed, disturbed = FakeS3(), FakeS3()
    writers = {id(s3): sink(bucket(s3), full=full) for s3 in (undisturbed, disturbed)}
    for number, batch in enumerate(batches):
        writers[id(undisturbed)](batch, number)
        writers[id(disturbed)](batch, number)
        for _ in range(crashes.count(number)):  # it was stored, and its end was not written down
            writers[id(disturbed)] = sink(bucket(disturbed), full=full)
            writers[id(disturbed)](batch, number)
    bodies = [{key: bucket(s3).get(key) for key in bucket(s3).keys("")} for s3 in (undisturbed, disturbed)]
    assert bodies[0] == bodies[1]


def test_a_micro_batch_that_is_repeated_with_smaller_objects_keeps_its_place() -> None:
    s3 = FakeS3()
    writer = sink(bucket(s3), full=100)
    for minute in range(2):
        writer(Batch(("A", at(minute), minute / 10), ("B", at(minute), minute / 10)), minute)
    writer = sink(bucket(s3), full=2)
    for minute in (1, 2):
        writer(Batch(("A", at(minute), minute / 10), ("B", at(minute), minute / 10)), minute)
    assert returns_by_object(s3) == {0: [0.0, 0.0, 0.1, 0.1], 2: [0.2, 0.2]}


def test_a_late_bar_of_a_day_that_is_over_goes_to_the_day_s_last_object() -> None:
    s3 = FakeS3()
    writer = sink(bucket(s3), full=4)
    writer(Batch(("A", at(388, MONDAY), 0.1)), 0)
    writer(Batch(("A", at(0), 0.2)), 1)
    writer(Batch(("A", at(389, MONDAY), 0.3)), 2)
    stored = get_table(bucket(s3), contract.predictions_key(MONDAY.day, "r", 0))
    assert stored["predicted_return"].to_pylist() == [0.1, 0.3]


def test_another_run_whose_name_begins_alike_is_left_alone() -> None:
    s3 = FakeS3()
    bucket(s3).put(contract.predictions_key(TUESDAY.day, "r-1", 0), b"")
    sink(bucket(s3), full=4)(BATCH, 3)
    keys = bucket(s3).keys(contract.PREDICTIONS_PREFIX)
    assert {(contract.predictions_run(key), contract.predictions_micro_batch(key)) for key in keys} == {
        ("r", 3),
        ("r-1", 0),
    }


def test_a_stream_that_another_one_overtook_writes_nothing_more() -> None:
    predictions = bucket()
    old, new = sink(predictions, full=100), sink(predictions, full=100)
    for number in (0, 1):
        old(Batch(("A", at(number), 0.1)), number)
    new(Batch(("A", at(1), 0.1)), 1)  # it goes on from the checkpoint, and repeats what was not done
    new(Batch(("A", at(2), 0.2)), 2)
    with pytest.raises(ServingError, match="another stream of run r is at work: it has written predictions/dt="):
        old(Batch(("A", at(1), 0.1)), 1)
    (table,) = [get_table(predictions, key) for key in predictions.keys(contract.PREDICTIONS_PREFIX)]
    assert table["predicted_return"].to_pylist() == [0.1, 0.1, 0.2]


class LosingAnswers(FakeS3):
    """S3 whose answer to a PUT gets lost, so that botocore asks again."""

    def put_object(self, **call: Any) -> dict[str, Any]:
        """Keep an object; the second call finds it there."""
        super().put_object(**call)
        return super().put_object(**call)


def test_a_put_that_had_succeeded_before_it_was_repeated_is_taken_as_our_own() -> None:
    s3 = LosingAnswers()
    writer = sink(bucket(s3), full=100)
    for number in (0, 1):
        writer(Batch(("A", at(number), 0.1 + number)), number)
    assert returns_by_object(s3) == {0: [0.1, 1.1]}


def test_a_stream_whose_checkpoint_is_lost_goes_on_without_what_is_stored() -> None:
    s3 = FakeS3()
    predictions, day = bucket(s3), TUESDAY.day
    lost = sink(predictions, full=100)
    lost(Batch(("A", at(0), 0.1), ("B", at(0), 0.1)), 0)
    lost(Batch(("A", at(1), 0.2)), 1)
    number = next_micro_batch(predictions, "r", day)
    assert number == 2
    for _ in range(2):  # and is killed and started again
        before = stored_before(predictions, "r", day, number)
        again = PredictionSink(predictions, "r", fixed_clock(NOW), 100, before=before)
        again(Batch(("A", at(0), 0.1), ("B", at(0), 0.1), ("A", at(1), 0.2), ("B", at(1), 0.3)), 0)
        again(Batch(("A", at(2), 0.4)), 1)
    assert returns_by_object(s3) == {0: [0.1, 0.1, 0.2, 0.3, 0.4]}
    assert next_micro_batch(predictions, "r", day) == 4
    assert next_micro_batch(predictions, "other", day) == 0
