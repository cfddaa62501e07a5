"""Predictions as a consumer reads them: each once, of one version of each object, and beside what happened."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import consumer, contract
from app.consumer.source import RunFolder, open_bucket
from app.errors import ObjectChanged, ObjectMissing, SettingsError, StorageError
from app.serving.latest import LatestPredictions
from app.storage import Bucket
from app.tables import arrow_schema, put_table
from app.training.evaluate import evaluate
from embedded.summary import write_run_folder
from tests.fakes import FakeS3, bucket, make_sessions
from tests.predictions import PRODUCED, predict, store

MONDAY, TUESDAY, WEDNESDAY = make_sessions(390, 390, 210)
PRICES = {"AAPL": [10.0, 11.0, 12.0], "BRK-B": [20.0, 21.0, 22.0]}
LATER = PRODUCED + timedelta(hours=1)


@pytest.fixture
def held() -> Bucket:
    """Three minutes of two tickers on Monday and on Tuesday."""
    held = bucket()
    for session in (MONDAY, TUESDAY):
        store(held, session, predict(session, PRICES))
    return held


def rows(table: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def arrow(held: Bucket, start: Any = MONDAY.day, end: Any = WEDNESDAY.day, **asked: Any) -> pa.Table:
    return consumer.predictions(start, end, frame="arrow", bucket=held, **asked)


def minute(session: Any, number: int) -> datetime:
    return datetime.fromtimestamp(session.open_ts, UTC) + timedelta(minutes=number)


def test_predictions_come_by_time_ticker_and_horizon_in_the_contracts_schema() -> None:
    held = bucket()
    late, early = predict(MONDAY, PRICES, first_minute=3, horizons=(5, 1)), predict(MONDAY, PRICES, horizons=(5, 1))
    store(held, MONDAY, late, micro_batch=0)
    store(held, MONDAY, early, micro_batch=7)
    found = arrow(held)
    assert found.schema == arrow_schema(contract.PREDICTIONS)
    assert found.schema.metadata is None
    expected = [(minute(MONDAY, m), t, h) for m in range(6) for t in ("AAPL", "BRK-B") for h in (1, 5)]
    assert rows(found, "as_of", "ticker", "horizon_min") == expected


def test_frames_are_of_pandas_unless_another_is_asked_for(held: Bucket) -> None:
    table = arrow(held)
    by_pandas = consumer.predictions(MONDAY.day, TUESDAY.day, bucket=held)
    by_polars = consumer.predictions(MONDAY.day, TUESDAY.day, frame="polars", bucket=held)
    assert isinstance(by_pandas, pd.DataFrame)
    assert isinstance(by_polars, pl.DataFrame)
    assert by_pandas["as_of"].dtype == "datetime64[ms, UTC]"
    assert by_polars.schema["as_of"] == pl.Datetime("ms", "UTC")
    assert by_pandas["last_price"].tolist() == by_polars["last_price"].to_list() == table["last_price"].to_pylist()
    assert [*by_pandas] == [*by_polars.columns] == table.column_names


def test_only_objects_of_the_days_asked_for_are_read() -> None:
    s3 = FakeS3()
    keys = {session.day: store(bucket(s3), session, predict(session, PRICES)) for session in (MONDAY, TUESDAY)}
    s3.put_object(Key="predictions/dt=2025-12-02/", Body=b"")  # as the console makes a folder
    assert set(arrow(bucket(s3), TUESDAY.day, "2025-12-31")["as_of"].to_pylist()) == {
        minute(TUESDAY, n) for n in range(3)
    }
    assert {key for key, _ in s3.gets} == {keys[TUESDAY.day]}


def test_only_the_columns_asked_for_are_fetched() -> None:
    s3, random = FakeS3(), np.random.default_rng(0)
    many = {f"T{n:03}": random.uniform(10, 20, 200) for n in range(100)}
    key = store(bucket(s3), MONDAY, predict(MONDAY, many))
    found = arrow(bucket(s3), columns=["horizon_min", "ticker"])
    assert found.column_names == ["horizon_min", "ticker"]
    assert len(found) == 20_000
    sent = sum(len(part) for _, part in s3.gets)
    assert sent < len(s3.objects[key].body) / 3
    assert arrow(bucket(s3), columns="predicted_price").column_names == ["predicted_price"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"tickers": "aapl"}, {("AAPL", 1), ("AAPL", 5)}),
        ({"tickers": ["BRK.B", "NONE"]}, {("BRK-B", 1), ("BRK-B", 5)}),
        ({"tickers": []}, set()),
        ({"horizons_min": 5}, {("AAPL", 5), ("BRK-B", 5)}),
        ({"horizons_min": np.int32(5)}, {("AAPL", 5), ("BRK-B", 5)}),
        ({"horizons_min": [1, 2], "tickers": ("AAPL",)}, {("AAPL", 1)}),
    ],
)
def test_tickers_and_horizons_are_chosen(asked: dict[str, Any], expected: set[tuple[str, int]]) -> None:
    held = bucket()
    store(held, MONDAY, predict(MONDAY, PRICES, horizons=(1, 5)))
    assert set(rows(arrow(held, **asked), "ticker", "horizon_min")) == expected


@pytest.mark.parametrize(
    ("start", "end", "minutes"),
    [
        (MONDAY.day, MONDAY.day, range(3)),
        ("2025-12-01", "2025-12-01", range(3)),
        (datetime(2025, 12, 1, 14, 31), datetime(2025, 12, 1, 14, 31), [1]),  # noqa: DTZ001  what is to be UTC
        ("2025-12-01T14:31Z", "2025-12-01", [1, 2]),
        ("2025-12-01T09:31-05:00", "2025-12-01T09:32-05:00", [1, 2]),
        ("2025-11-03", "2025-12-01T14:30:59.999+00:00", [0]),
        (pd.Timestamp("2025-12-01 14:32", tz="UTC"), TUESDAY.day, [2, "tuesday"]),
        ("2025-12-02T00:30Z", "2025-12-02T01:00Z", []),  # a Monday evening in New York
    ],
)
def test_a_date_is_a_session_and_an_instant_bounds_the_bar(held: Bucket, start: Any, end: Any, minutes: Any) -> None:
    tuesday = [minute(TUESDAY, n) for n in range(3)] if "tuesday" in minutes else []
    expected = [minute(MONDAY, n) for n in minutes if n != "tuesday"]
    assert sorted(set(arrow(held, start, end)["as_of"].to_pylist())) == [*expected, *tuesday]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"start": "yesterday"}, "start='yesterday' is no session such as 2026-03-24, nor an instant such as"),
        ({"end": 20251201}, "end=20251201 is no date, datetime or ISO text"),
        ({"start": "2025-12-03", "end": "2025-12-02"}, "start=2025-12-03 lies after end=2025-12-02"),
        ({"start": "2025-12-02T15:00Z", "end": "2025-12-02T14:59Z"}, "lies after"),
        ({"columns": ["price", "ticker"]}, "there is no column 'price': there are ticker, as_of, horizon_min"),
        ({"frame": "spark"}, "frame='spark': take one of pandas, polars, arrow"),
    ],
)
def test_what_cannot_be_asked_is_told_before_anything_is_read(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        consumer.predictions(**{"start": "2025-12-01", "end": "2025-12-02", "bucket": bucket(), **asked})


def test_no_predictions_are_no_rows_of_the_same_columns() -> None:
    for found in (arrow(bucket()), consumer.latest(frame="arrow", bucket=bucket())):
        assert (len(found), found.schema) == (0, arrow_schema(contract.PREDICTIONS))
    assert len(arrow(bucket(), run_id="r")) == 0
    assert [*consumer.outcomes("2025-12-01", "2025-12-01", columns=["dt", "ticker"], bucket=bucket())] == [
        "dt",
        "ticker",
    ]
    assert len(consumer.accuracy("2025-12-01", "2025-12-01", by=(), bucket=bucket())) == 0
    assert consumer.sessions(bucket=bucket()) == []


def test_of_two_runs_that_predict_the_same_what_was_produced_last_counts() -> None:
    held = bucket()
    store(held, MONDAY, predict(MONDAY, {"AAPL": [1.0, 1.0], "ONLY": [3.0]}, produced_at=LATER), run_id="a")
    store(held, MONDAY, predict(MONDAY, {"AAPL": [2.0, 2.0, 2.0]}), run_id="b")
    assert rows(arrow(held), "as_of", "ticker", "last_price") == [
        (minute(MONDAY, 0), "AAPL", 1.0),
        (minute(MONDAY, 0), "ONLY", 3.0),
        (minute(MONDAY, 1), "AAPL", 1.0),
        (minute(MONDAY, 2), "AAPL", 2.0),
    ]
    assert arrow(held, tickers="AAPL", columns="last_price")["last_price"].to_pylist() == [1.0, 1.0, 2.0]
    assert arrow(held, run_id="b")["last_price"].to_pylist() == [2.0, 2.0, 2.0]
    assert len(arrow(held, run_id="c")) == 0


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 5)), max_size=30, unique_by=lambda p: p[:2])
)
def test_each_prediction_comes_once_however_runs_overlap(made: list[tuple[int, int, int]]) -> None:
    held = bucket()
    for run in range(3):
        tables = [
            predict(MONDAY, {"A": [run + 1.0]}, first_minute=at, produced_at=PRODUCED + timedelta(seconds=second))
            for number, at, second in made
            if number == run
        ]
        if tables:
            store(held, MONDAY, pa.concat_tables(tables), run_id=f"r{run}")
    expected = {at: max((second, run) for run, other, second in made if other == at)[1] + 1.0 for _, at, _ in made}
    assert rows(arrow(held), "as_of", "last_price") == [(minute(MONDAY, at), expected[at]) for at in sorted(expected)]


def test_sessions_are_those_with_predictions(held: Bucket) -> None:
    assert consumer.sessions(bucket=held) == [MONDAY.day, TUESDAY.day]
    assert consumer.sessions(run_id="other", bucket=held) == []


# --- objects that grow while they are read ----------------------------------------------------------------------------


class Growing(FakeS3):
    """Puts the next of `versions` in the place of an object before the answers of these numbers, counted from 1."""

    def __init__(self, before: set[int], versions: list[bytes]) -> None:
        super().__init__()
        self.before, self.versions, self.asked = before, versions, 0

    def get_object(self, **call: Any) -> dict[str, Any]:
        """As FakeS3's, perhaps of a new object."""
        self.asked += 1
        if self.asked in self.before and self.versions:
            self.put_object(Key=call["Key"], Body=self.versions.pop(0))
        return super().get_object(**call)


def versions(count: int) -> list[bytes]:
    """An object as it grows by 3,000 rows each time, too large to be read in one request."""
    random = np.random.default_rng(1)
    whole = predict(MONDAY, {f"T{n:02}": random.uniform(1, 2, 30 * count) for n in range(100)})
    s3 = FakeS3()
    for number in range(1, count + 1):
        put_table(bucket(s3), str(number), whole[: 3000 * number])
    return [s3.objects[str(number)].body for number in range(1, count + 1)]


VERSIONS = versions(3)
COLUMNS = ["as_of", "ticker", "predicted_price"]


def growing(before: set[int], bodies: list[bytes]) -> tuple[Growing, Bucket]:
    s3 = Growing(before, bodies[1:])
    bucket(s3).put(contract.predictions_key(MONDAY.day, "r", 0), bodies[0])
    return s3, bucket(s3)


def test_an_object_that_is_replaced_while_it_is_read_is_read_again_whole() -> None:
    s3, held = growing(set(), VERSIONS[:1])
    first = arrow(held, columns=COLUMNS)
    assert len(first) == 3000
    assert s3.asked >= 2
    for number in range(1, s3.asked + 1):
        _, held = growing({number}, VERSIONS[:2])
        found = arrow(held, columns=COLUMNS)
        assert len(found) == 6000
        assert found[:3000].equals(first)


def test_an_object_may_be_replaced_more_than_once() -> None:
    _, held = growing({2, 4}, VERSIONS)
    assert len(arrow(held, columns=COLUMNS)) == 9000


def test_an_object_that_never_stays_the_same_is_an_error_and_no_mixture() -> None:
    s3, held = growing(set(range(100)), [VERSIONS[0], *VERSIONS[1:] * 50])
    with pytest.raises(ObjectChanged, match="was changed by somebody else meanwhile"):
        arrow(held)
    assert s3.asked < 40


# --- what is not as stockflow writes it -------------------------------------------------------------------------------


def test_objects_of_an_earlier_schema_are_told_unless_no_new_column_is_asked_for() -> None:
    held = bucket()
    earlier = predict(MONDAY, PRICES).drop_columns(["price_p10", "price_p50", "price_p90"])
    key = store(held, MONDAY, earlier)
    with pytest.raises(StorageError, match=rf"s3://fake/{key} has no price_p10, price_p50, price_p90: .*version 2"):
        arrow(held)
    assert len(arrow(held, columns=["predicted_price"])) == 6


def test_an_object_that_is_no_table_is_told() -> None:
    held = bucket()
    held.put(contract.predictions_key(MONDAY.day, "r", 0), b"PAR0" * 10)
    with pytest.raises(StorageError, match=r"s3://fake/predictions/dt=2025-12-01/r-00000000.parquet is not a Parquet"):
        arrow(held)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"schema_version": 3, "predictions": []},
            "has schema version 3, and this stockflow reads 2: take the version",
        ),
        (
            {"schema_version": 2, "predictions": [{"ticker": "A"}]},
            "holds no predictions as stockflow writes them: KeyErr",
        ),
        ([], "holds no predictions as stockflow writes them"),
    ],
)
def test_a_latest_document_of_another_form_is_told(body: Any, message: str) -> None:
    held = bucket()
    held.put_json(contract.LATEST_PREDICTIONS_KEY, body)
    with pytest.raises(StorageError, match=rf"s3://fake/latest.json {message}"):
        consumer.latest(bucket=held)


def test_latest_is_what_the_stream_wrote_last() -> None:
    held = bucket()
    writer = LatestPredictions(held)
    writer.write(predict(MONDAY, PRICES, horizons=(1, 5)))
    writer.write(predict(MONDAY, {"AAPL": [13.0]}, horizons=(1, 5), first_minute=3))
    found = consumer.latest(frame="arrow", bucket=held)
    assert found.schema == arrow_schema(contract.PREDICTIONS)
    assert rows(found, "ticker", "horizon_min", "last_price", "as_of") == [
        ("AAPL", 1, 13.0, minute(MONDAY, 3)),
        ("AAPL", 5, 13.0, minute(MONDAY, 3)),
        ("BRK-B", 1, 22.0, minute(MONDAY, 2)),
        ("BRK-B", 5, 22.0, minute(MONDAY, 2)),
    ]
    chosen = consumer.latest("brk.b", columns="last_price", horizons_min=1, frame="polars", bucket=held)
    assert chosen.to_dicts() == [{"last_price": 22.0}]


# --- where it reads, and with what ------------------------------------------------------------------------------------


def test_the_bucket_is_that_of_the_environment_unless_one_is_given(monkeypatch: pytest.MonkeyPatch, s3: FakeS3) -> None:
    monkeypatch.delenv(contract.ENV_PREDICTIONS_BUCKET, raising=False)
    with pytest.raises(SettingsError, match="set STOCKFLOW_PREDICTIONS_BUCKET or pass bucket="):
        consumer.latest()
    store(bucket(s3), MONDAY, predict(MONDAY, PRICES))
    monkeypatch.setenv(contract.ENV_PREDICTIONS_BUCKET, "any")
    assert len(consumer.predictions(MONDAY.day, MONDAY.day)) == 6
    assert open_bucket("named").name == "named"


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_a_library_that_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch, name: Any) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingsError, match=f'frame="{name}" needs {name}, which cannot be imported: `pip install'):
        consumer.latest(frame=name, bucket=bucket())


def test_boto3_pyarrow_and_numpy_are_all_that_is_imported() -> None:
    code = "import sys, app.consumer, app.consumer.history; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert {"boto3", "pyarrow", "numpy"} <= loaded
    assert not loaded & {"pandas", "polars", "pydantic", "click", "rich", "exchange_calendars", "pyspark", "tensorflow"}


def run_folder(folder: Path, s3: FakeS3) -> Path:
    """What `stockflow run` leaves of a bucket that is all three."""
    logs = folder / "logs"
    logs.mkdir()
    buckets = {"market": bucket(s3), "model": bucket(s3), "predictions": bucket(s3)}
    write_run_folder(folder / "run", {"run_id": "r"}, buckets, "r", logs, {})
    return folder / "run"


def test_the_folder_of_a_run_reads_as_the_buckets_do(tmp_path: Path) -> None:
    s3 = FakeS3()
    held = bucket(s3)
    store(held, MONDAY, predict(MONDAY, PRICES))
    LatestPredictions(held).write(predict(MONDAY, PRICES))
    for key in (contract.plan_key("r"), contract.result_key("r", "serve"), contract.plan_key("before")):
        held.put(key, key.encode())
    held.put(contract.CURRENT_MODEL_KEY, b"{}")
    folder = RunFolder(run_folder(tmp_path, s3))
    for prefix in ("predictions/", "models/", "runs/r/results/", "latest.json"):
        assert folder.keys(prefix) == held.keys(prefix) != []
    assert {"runs/before/plan.json", "runs/r/plan.json", "runs/r/results/serve.json"} <= {*folder.keys("runs/")}
    for key in held.keys(""):
        assert folder.exists(key)
        assert folder.get(key) == held.get(key)
    assert folder.keys("predictions/", start_after="predictions/dt=2025-12-02/") == []
    assert arrow(folder).equals(arrow(held))
    as_text = f"{tmp_path}/run"
    assert (
        len(consumer.latest(bucket=as_text))
        == len(consumer.predictions("2025-12-01", "2025-12-01", bucket=as_text)) / 3
    )


def test_any_copy_of_a_bucket_will_do_and_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere is no folder: name that of a run, or a bucket"):
        consumer.latest(bucket="./nowhere")
    assert consumer.latest(bucket=tmp_path).empty
    copy = RunFolder(tmp_path)
    with pytest.raises(ObjectMissing):
        copy.get("runs/r/plan.json")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "x").touch()
    assert copy.keys("runs/") == ["runs/x"]


# --- as they come -----------------------------------------------------------------------------------------------------


def steps(monkeypatch: pytest.MonkeyPatch, *done: Callable[[], object]) -> list[float]:
    """What happens while one waits for more predictions; KeyboardInterrupt when all has happened."""
    left, slept = list(done), []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if not left:
            raise KeyboardInterrupt
        left.pop(0)()

    monkeypatch.setattr("time.sleep", sleep)
    return slept


def followed(held: Bucket, **asked: Any) -> list[list[float]]:
    """The last prices of each frame until nothing comes any more."""
    found: list[list[float]] = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(frame["last_price"].to_pylist() for frame in consumer.follow(frame="arrow", bucket=held, **asked))
    return found


def test_what_comes_from_now_on_is_given_once(monkeypatch: pytest.MonkeyPatch, held: Bucket) -> None:
    first = predict(TUESDAY, {"A": [1.0, 2.0]})
    second = predict(TUESDAY, {"A": [3.0]}, first_minute=2)
    slept = steps(
        monkeypatch,
        lambda: store(held, TUESDAY, first, "s"),
        lambda: None,
        lambda: store(held, TUESDAY, pa.concat_tables([first, second]), "s"),
        lambda: store(held, TUESDAY, first, "s"),  # after a crash, up to the micro-batch that is repeated
        lambda: store(held, TUESDAY, pa.concat_tables([first, second]), "s"),
        lambda: store(held, WEDNESDAY, predict(WEDNESDAY, {"A": [4.0], "B": [5.0]}), "s", 9),
    )
    assert followed(held, tickers="A", every_s=0.5) == [[1.0, 2.0], [3.0], [4.0]]
    assert set(slept) == {0.5}


def test_following_may_begin_with_what_is_stored(monkeypatch: pytest.MonkeyPatch, held: Bucket) -> None:
    steps(monkeypatch, lambda: store(held, TUESDAY, predict(TUESDAY, {"A": [1.0]}), "s"))
    assert followed(held, start="2025-12-02T14:32Z", tickers=["A", "AAPL"]) == [[12.0]]
    steps(monkeypatch)
    assert followed(held, start="2025-12-02", tickers=["A", "AAPL"]) == [[10.0, 11.0, 12.0], [1.0]]


def test_following_begins_in_an_empty_bucket_too(monkeypatch: pytest.MonkeyPatch) -> None:
    held = bucket()
    steps(monkeypatch, lambda: store(held, MONDAY, predict(MONDAY, {"A": [1.0]})))
    assert followed(held, columns="last_price", run_id="r") == [[1.0]]


def test_a_runs_folder_is_not_followed(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is a run's folder, to which nothing is added: follow a bucket"):
        consumer.follow(bucket=tmp_path)


# --- what happened ----------------------------------------------------------------------------------------------------


def test_what_happened_is_the_last_price_horizon_minutes_later() -> None:
    held = bucket()
    store(held, MONDAY, predict(MONDAY, {"A": [10.0, 11.0, np.nan, 12.0], "B": [7.0, 8.0, 9.0, 10.0]}, horizons=(1, 2)))
    store(held, TUESDAY, predict(TUESDAY, {"A": [99.0]}, horizons=(1, 2)))
    found = consumer.outcomes(MONDAY.day, TUESDAY.day, "A", frame="arrow", bucket=held)
    assert found.column_names == [*arrow_schema(contract.PREDICTIONS).names, "dt", "actual_price", "actual_return"]
    assert rows(found, "dt", "last_price", "horizon_min", "actual_price") == [
        ("2025-12-01", 10.0, 1, 11.0),
        ("2025-12-01", 10.0, 2, None),
        ("2025-12-01", 11.0, 1, None),
        ("2025-12-01", 11.0, 2, 12.0),
        ("2025-12-01", 12.0, 1, None),
        ("2025-12-01", 12.0, 2, None),
        ("2025-12-02", 99.0, 1, None),
        ("2025-12-02", 99.0, 2, None),
    ]
    assert found["actual_return"].to_pylist()[:2] == [pytest.approx(np.log(1.1)), None]


def test_what_happened_after_the_period_counts_too() -> None:
    held = bucket()
    store(held, MONDAY, predict(MONDAY, {"A": [1.0, 2.0, 3.0, 4.0]}, horizons=(1, 2)))
    at = minute(MONDAY, 1)
    found = consumer.outcomes(at, at, horizons_min=2, columns="actual_price", frame="arrow", bucket=held)
    assert found.to_pydict() == {"actual_price": [4.0]}


def test_of_two_prices_of_a_minute_the_one_told_last_happened() -> None:
    held = bucket()
    store(held, MONDAY, predict(MONDAY, {"A": [1.0, 5.0]}, horizons=(1,)), run_id="a")
    store(held, MONDAY, predict(MONDAY, {"A": [4.0]}, first_minute=1, horizons=(2,), produced_at=LATER), run_id="b")
    asked: dict[str, Any] = {"columns": "actual_price", "frame": "arrow", "bucket": held}
    assert consumer.outcomes(MONDAY.day, MONDAY.day, **asked)["actual_price"].to_pylist() == [4.0, None, None]
    assert consumer.outcomes(MONDAY.day, MONDAY.day, run_id="a", **asked)["actual_price"].to_pylist() == [5.0, None]


def test_accuracy_of_a_few_predictions_is_as_worked_out_by_hand() -> None:
    held = bucket()
    closes = [100.0, 101.0, 101.0, 99.0]
    told = {("A", 1): np.log([1.01, 1.02, 0.99, 1.0])}
    store(held, MONDAY, predict(MONDAY, {"A": closes}, horizons=(1,), returns=told, width=0.015))
    (found,) = consumer.accuracy(
        "2025-12-01", "2025-12-01", by=["ticker", "dt"], frame="arrow", bucket=held
    ).to_pylist()
    actual, predicted = np.log([1.01, 1.0, 99 / 101]), np.log([1.01, 1.02, 0.99])
    expected = {
        "ticker": "A",
        "dt": "2025-12-01",
        "sessions": 1,
        "predictions": 3,
        "mae_usd": (0 + 2.02 + 0.99) / 3,
        "mae_persistence_usd": (1 + 0 + 2) / 3,
        "rmse_usd": np.sqrt((2.02**2 + 0.99**2) / 3),
        "rmse_persistence_usd": np.sqrt(5 / 3),
        "mae_bp": np.abs(predicted - actual).mean() * 1e4,
        "mae_persistence_bp": np.abs(actual).mean() * 1e4,
        "rmse_bp": np.sqrt(np.square(predicted - actual).mean()) * 1e4,
        "rmse_persistence_bp": np.sqrt(np.square(actual).mean()) * 1e4,
        "skill": 1 - np.square(predicted - actual).sum() / np.square(actual).sum(),
        "direction": 1.0,
        "coverage": 2 / 3,
        "width_bp": 300.0,
    }
    assert [*found] == [*expected]
    assert found == {
        name: value if isinstance(value, str) else pytest.approx(value) for name, value in expected.items()
    }


def test_what_cannot_be_told_is_null() -> None:
    held = bucket()
    store(held, MONDAY, predict(MONDAY, {"A": [5.0, 5.0]}, horizons=(1,)))
    (found,) = consumer.accuracy("2025-12-01", "2025-12-01", frame="arrow", bucket=held).to_pylist()
    assert (found["horizon_min"], found["predictions"], found["mae_usd"]) == (1, 1, 0.0)
    assert found["skill"] is found["direction"] is None


def test_accuracy_is_what_the_training_measures_of_the_same_forecasts() -> None:
    held, random, horizons = bucket(), np.random.default_rng(2), (1, 5)
    names, minutes, sessions = ["A", "B", "C"], 60, (MONDAY, TUESDAY)
    future: dict[int, list[float]] = {horizon: [] for horizon in horizons}
    made: dict[int, list[list[float]]] = {horizon: [] for horizon in horizons}
    last: dict[int, list[float]] = {horizon: [] for horizon in horizons}
    at: dict[int, list[int]] = {horizon: [] for horizon in horizons}
    for session in sessions:
        closes = {name: 100 * np.exp(random.normal(0, 1e-3, minutes).cumsum()) for name in names}
        told = {(name, horizon): random.normal(0, 5e-4, minutes) for name in names for horizon in horizons}
        store(held, session, predict(session, closes, horizons=horizons, returns=told, width=0.0012))
        for (name, horizon), values in told.items():
            known = range(minutes - horizon)
            future[horizon] += [closes[name][m + horizon] for m in known]
            last[horizon] += [closes[name][m] for m in known]
            made[horizon] += [[values[m], values[m] - 0.0012, values[m], values[m] + 0.0012] for m in known]
            at[horizon] += [session.open_ts + 60 * m for m in known]
    found = consumer.accuracy(MONDAY.day, TUESDAY.day, frame="arrow", bucket=held).to_pylist()
    assert [row["horizon_min"] for row in found] == [*horizons]
    for row, horizon in zip(found, horizons, strict=True):
        measured = evaluate(
            np.array(made[horizon])[:, None],
            last_price=np.array(last[horizon]),
            future_price=np.array(future[horizon])[:, None],
            as_of=np.array(at[horizon]),
            horizons_min=[horizon],
            seed=0,
        ).horizons[horizon]
        assert row["predictions"] == measured.windows
        assert row["sessions"] == 2
        for name in [name for name in row if name not in ("horizon_min", "predictions", "sessions")]:
            assert row[name] == pytest.approx(getattr(measured, name)), name


def test_groups_of_accuracy_add_up() -> None:
    held, random = bucket(), np.random.default_rng(3)
    for session, model in ((MONDAY, "m1"), (TUESDAY, "m2")):
        closes = {name: random.uniform(9, 10, 30) for name in ("A", "B")}
        store(held, session, predict(session, closes, horizons=(1, 5), model_id=model))
    asked: dict[str, Any] = {"frame": "arrow", "bucket": held}

    def by(*groups: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = consumer.accuracy(MONDAY.day, TUESDAY.day, by=groups, **asked).to_pylist()
        return found

    (whole,) = by()
    assert (whole["sessions"], whole["predictions"]) == (2, 2 * 2 * (29 + 25))
    for groups, count in ((("dt", "ticker", "horizon_min"), 8), (("model_id",), 2), (("ticker",), 2)):
        parts = by(*groups)
        assert len(parts) == count
        assert [tuple(part[name] for name in groups) for part in parts] == sorted(
            tuple(part[name] for name in groups) for part in parts
        )
        assert sum(part["predictions"] * part["mae_bp"] for part in parts) / whole["predictions"] == pytest.approx(
            whole["mae_bp"]
        )
    with pytest.raises(SettingsError, match="there is no column 'day': there are dt, ticker, horizon_min, model_id"):
        by("day")


def test_the_documented_schema_is_the_contracts() -> None:
    text = (Path(__file__).parents[2] / "docs" / "consumers.md").read_text(encoding="utf-8")
    told = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("| `") and line.count("|") == 4]
    columns = [(name.strip(), kind.strip(), note.strip()) for name, kind, note in told]
    for column in contract.PREDICTIONS:
        assert (f"`{column.name}`", column.arrow_type, column.note) in columns
    assert f"schema version is **{contract.PREDICTIONS_SCHEMA_VERSION}**" in text
    document = json.loads(text.partition("```json")[2].partition("```")[0])
    assert document["schema_version"] == contract.PREDICTIONS_SCHEMA_VERSION
    assert [*document["predictions"][0]] == [column.name for column in contract.PREDICTIONS]
