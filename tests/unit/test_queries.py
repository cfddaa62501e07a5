"""The queries that are deployed to Athena, run over objects as the stream leaves them, against what a consumer reads.

DuckDB takes them as they are: the clock alone is set. What it averages otherwise than Athena the last test looks at.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from app import consumer, contract
from app.clock import fixed_clock
from app.serving.sink import PredictionSink
from app.sessions import Session
from app.storage import Bucket
from infra.catalog import QUERIES, query_sql
from tests.fakes import FakeS3, bucket, make_sessions
from tests.predictions import PRODUCED, predict, store

MONDAY, TUESDAY, WEDNESDAY = make_sessions(390, 390, 210)
LONG_AGO = Session(MONDAY.day - timedelta(days=40), MONDAY.open_ts - 40 * 86_400, 390)
MINUTES = 40
EVENING = datetime(2025, 12, 4, 1, 0, tzinfo=UTC)
"""Wednesday evening in New York, Thursday in UTC."""


class Batch:
    """A micro-batch as Spark hands it to foreachBatch."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def toArrow(self) -> pa.Table:  # noqa: N802  Spark's name
        """The predictions in the stream's schema: as_of in epoch seconds, and a summary that is empty."""
        seconds = pa.array(self._table["as_of"].cast(pa.int64()).to_numpy() // 1000)
        table = self._table.drop_columns(["produced_at"]).set_column(1, "as_of", seconds)
        return table.append_column("summary", pa.array([""] * len(table)))


def write(held: Bucket, session: Any, run_id: str, table: pa.Table, at: datetime) -> None:
    """By the stream's own sink, in micro-batches of ten minutes and objects of two micro-batches."""
    sink = PredictionSink(held, run_id, fixed_clock(at), object_rows=150)
    opened = datetime.fromtimestamp(session.open_ts, UTC)
    minutes = [(moment - opened) // timedelta(minutes=1) for moment in table["as_of"].to_pylist()]
    for number, first in enumerate(range(0, MINUTES, 10)):
        sink(Batch(table.filter(pa.array([first <= minute < first + 10 for minute in minutes]))), number)


@pytest.fixture(scope="module")
def s3() -> FakeS3:
    """Three sessions, the last of them predicted by two runs, the second of which began later; and one long ago."""
    s3, random = FakeS3(), np.random.default_rng(5)
    tickers, horizons = ("AAPL", "BRK-B", "X"), (1, 5)
    for session in (MONDAY, TUESDAY, WEDNESDAY):
        closes = {name: 100 * np.exp(random.normal(0, 1e-3, MINUTES).cumsum()) for name in tickers}
        closes["X"][7] = closes["BRK-B"][-1] = np.nan
        for run_id, first in (("a", 0), ("b", 15)) if session is WEDNESDAY else (("a", 0),):
            told = {(name, horizon): random.normal(0, 1e-3, MINUTES) for name in tickers for horizon in horizons}
            table = predict(session, closes, horizons=horizons, returns=told, width=0.002, model_id=f"m{run_id}")
            opened = datetime.fromtimestamp(session.open_ts, UTC)
            kept = [moment >= opened + timedelta(minutes=first) for moment in table["as_of"].to_pylist()]
            write(bucket(s3), session, run_id, table.filter(pa.array(kept)), PRODUCED + timedelta(hours=first))
    store(bucket(s3), LONG_AGO, predict(LONG_AGO, {"AAPL": [1.0, 2.0]}, horizons=(1,)))
    return s3


@pytest.fixture(scope="module")
def athena(s3: FakeS3, tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    """The objects under their keys, as the table that the catalog declares."""
    folder = tmp_path_factory.mktemp("lake")
    for key, held in s3.objects.items():
        place = Path(folder, key)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(held.body)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("CREATE SCHEMA deployed")
    objects = f"{folder}/{contract.PREDICTIONS_PREFIX}*/*.parquet"
    files = f"read_parquet('{objects}', hive_partitioning = true, hive_types = {{'dt': VARCHAR}})"
    connection.execute(f"CREATE VIEW deployed.predictions AS SELECT * FROM {files}")  # noqa: S608  a folder of ours
    return connection


def ask(athena: duckdb.DuckDBPyConnection, name: str, now: datetime = EVENING) -> list[dict[str, Any]]:
    """A named query's rows, with the clock at an instant."""
    sql = query_sql(name, "deployed").replace("current_timestamp", f"TIMESTAMPTZ '{now.isoformat()}'")
    found: list[dict[str, Any]] = athena.sql(sql).to_arrow_table().to_pylist()
    return found


def test_the_error_of_predictions_is_what_a_consumer_computes(athena: duckdb.DuckDBPyConnection, s3: FakeS3) -> None:
    found = ask(athena, "prediction_error")
    expected = consumer.accuracy(
        MONDAY.day, WEDNESDAY.day, by=("dt", "ticker", "horizon_min"), frame="arrow", bucket=bucket(s3)
    ).to_pylist()
    assert len(found) == len(expected) == 3 * 3 * 2
    for row, other in zip(found, expected, strict=True):
        assert {name: value for name, value in row.items() if not isinstance(value, float)} == {
            name: other[name] for name in ("ticker", "dt", "horizon_min", "predictions")
        }
        measured = {name: value for name, value in row.items() if isinstance(value, float)}
        assert measured == {name: pytest.approx(other[name], rel=1e-9) for name in measured}
        assert {*measured} == {"mae_usd", "mae_persistence_usd", "skill", "coverage"}
    assert {row["predictions"] for row in found if row["ticker"] == "AAPL"} == {MINUTES - 1, MINUTES - 5}
    assert {row["predictions"] for row in found if row["ticker"] == "X"} == {MINUTES - 3, MINUTES - 7}


def test_the_error_is_of_the_last_thirty_days(athena: duckdb.DuckDBPyConnection) -> None:
    days = {row["dt"] for row in ask(athena, "prediction_error", EVENING + timedelta(days=29))}
    assert days == {"2025-12-02", "2025-12-03"}
    assert "2025-10-22" in {row["dt"] for row in ask(athena, "prediction_error", EVENING - timedelta(days=30))}


def test_the_newest_predictions_are_those_of_latest_json(athena: duckdb.DuckDBPyConnection, s3: FakeS3) -> None:
    found = ask(athena, "newest_predictions")
    expected = consumer.latest(columns=[*found[0]], frame="arrow", bucket=bucket(s3)).to_pylist()
    assert found == expected
    assert {(row["ticker"], row["model_id"], row["as_of"].minute) for row in found} == {
        ("AAPL", "mb", 9),
        ("BRK-B", "mb", 8),
        ("X", "mb", 9),
    }


def test_today_is_that_of_new_york(athena: duckdb.DuckDBPyConnection) -> None:
    assert ask(athena, "newest_predictions", EVENING + timedelta(hours=3, minutes=59)) != []
    assert ask(athena, "newest_predictions", EVENING + timedelta(hours=4)) == []


def test_the_documented_query_runs(athena: duckdb.DuckDBPyConnection) -> None:
    text = (Path(__file__).parents[2] / "docs" / "consumers.md").read_text(encoding="utf-8")
    sql = text.partition("```sql")[2].partition("```")[0].replace("stockflow_data", "deployed")
    found = athena.sql(sql).to_arrow_table().to_pylist()
    assert found == [
        {"ticker": "AAPL", "dt": day, "predictions": MINUTES, "width_bp": pytest.approx(40)}
        for day in ("2025-12-01", "2025-12-02")
    ]


@pytest.mark.parametrize("name", QUERIES)
def test_no_share_is_averaged_as_a_decimal(name: str) -> None:
    """In Athena 1.0 is a decimal of one place, and so is the average of such: 0.8 for 0.77."""
    sql = re.sub(r"--.*", "", query_sql(name, "deployed"))
    assert not re.search(r"\d\.\d+(?!e)", sql)
    assert ";" not in query_sql(name, "deployed")
