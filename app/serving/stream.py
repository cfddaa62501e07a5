"""The Spark application: ticks -> state and forecasts in the workers -> predictions in S3."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import expr
from pyspark.sql.streaming.listener import StreamingQueryProgress
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.state import GroupStateTimeout

from app import contract
from app.errors import ServingError
from app.processes import find_java
from app.serving.score_bucket import OUTPUT_SCHEMA, STATE_SCHEMA, StreamPlace, bucket_scorer
from app.serving.sink import PredictionSink
from app.serving.tick_source import SOURCE, TickSource
from app.settings import ServingSettings
from app.storage import Bucket

_SUBMITTED = "PYSPARK_GATEWAY_PORT"
"""Set by spark-submit for the Python program that it starts."""
_AWS_VARIABLES = ("AWS_DEFAULT_REGION", "AWS_REGION", contract.ENV_AWS_ENDPOINT_URL)
_NAMED_ERROR = re.compile(r"[\w.]*(Error|Exception): \S")
"""How a Python traceback ends."""


def start_spark(settings: ServingSettings) -> SparkSession:
    """A Spark session: the cluster's where spark-submit started this program, else one on this machine's cores.

    Raises MissingProgram without a Java runtime and ServingError when Java does not start Spark.
    """
    builder = SparkSession.builder.appName("stockflow")
    builder = _on_the_cluster(builder) if _SUBMITTED in os.environ else _on_this_machine(builder, settings)
    builder = builder.config("spark.sql.shuffle.partitions", settings.partitions)
    try:
        spark = builder.config("spark.sql.session.timeZone", "UTC").getOrCreate()
    except PySparkException as exc:
        raise ServingError(f"Java did not start Spark ({exc}): is it a Java 17 runtime?") from exc
    spark.dataSource.register(TickSource)
    return spark


def _on_the_cluster(builder: SparkSession.Builder) -> SparkSession.Builder:
    """Master, memory and Python are those given to spark-submit; workers find AWS where this program does."""
    for name in _AWS_VARIABLES:
        if name in os.environ:
            builder = builder.config(f"spark.executorEnv.{name}", os.environ[name])
    return builder


def _on_this_machine(builder: SparkSession.Builder, settings: ServingSettings) -> SparkSession.Builder:
    find_java(os.environ)
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    return (
        builder.master(f"local[{settings.partitions}]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.log.level", "ERROR")
        .config("spark.driver.memory", "1g")
    )


def forecasts(spark: SparkSession, place: StreamPlace, settings: ServingSettings) -> DataFrame:
    """The streaming frame of predictions: all tickers of a micro-batch scored together, by bucket."""
    ticks = (
        spark.readStream.format(SOURCE)
        .option("bucket", place.market_bucket)
        .option("prefix", contract.ticks_prefix(place.run_id))
        .option("tasks", settings.partitions)
        .load()
    )
    return (
        ticks.withColumn("bucket", expr(f"pmod(xxhash64(ticker), {settings.buckets})"))
        .groupBy("bucket")
        .applyInPandasWithState(
            bucket_scorer(place), OUTPUT_SCHEMA, STATE_SCHEMA, "append", GroupStateTimeout.NoTimeout
        )
    )


def run_stream(
    spark: SparkSession,
    place: StreamPlace,
    settings: ServingSettings,
    sink: PredictionSink,
    checkpoint: str,
    feed_alive: Callable[[], bool] = lambda: False,
    on_poll: Callable[[], None] = lambda: None,
) -> None:
    """Run the query until the feed has ended and its last object is scored.

    checkpoint: URI of the folder of its offsets and state. feed_alive: whether a feed of ours is at work, so
    that a quiet market is no fault; raises when it has failed. on_poll: called every `poll_s`. Raises
    ServingError when the query fails or nothing arrives for `idle_timeout_s`.
    """
    query = (
        forecasts(spark, place, settings)
        .writeStream.foreachBatch(sink)
        .option("checkpointLocation", checkpoint)
        .trigger(processingTime=f"{settings.trigger_s} seconds")
        .start()
    )
    try:
        _until_fed(query, Bucket(place.market_bucket), place.run_id, settings, feed_alive, on_poll)
    finally:
        query.stop()


def _until_fed(
    query: StreamingQuery,
    market: Bucket,
    run_id: str,
    settings: ServingSettings,
    feed_alive: Callable[[], bool],
    on_poll: Callable[[], None],
) -> None:
    last_key: str | None = None
    reached, moved_s = "", time.monotonic()
    while True:
        time.sleep(settings.poll_s)
        on_poll()
        if not query.isActive:
            raise ServingError(f"the stream failed: {_cause(query.exception())}")
        now_at = _end_key(query.lastProgress)
        if now_at != reached:
            reached, moved_s = now_at, time.monotonic()
        if last_key is None and market.exists(contract.feed_end_key(run_id)):
            last_key = str(market.get_json(contract.feed_end_key(run_id))["last_key"])
        if last_key is not None and reached >= last_key:
            return
        if last_key is None and feed_alive():
            moved_s = time.monotonic()
        if time.monotonic() - moved_s > settings.idle_timeout_s:
            raise ServingError(
                f"no tick for {settings.idle_timeout_s:g} s under s3://{market.name}/{contract.ticks_prefix(run_id)}:"
                " start `stockflow feed`, or raise serving.idle_timeout_s"
            )


def _end_key(progress: StreamingQueryProgress | None) -> str:
    """The key up to which the last finished micro-batch has read."""
    if progress is None:
        return ""
    end = json.loads(progress.json)["sources"][0]["endOffset"]
    return str(end["key"]) if end else ""


def _cause(exc: Exception | None) -> str:
    """The telling line of an error in a worker or in the sink, inside Spark's long message."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith(("app.errors.", "botocore.", "onnxruntime."))]
    telling = ours or [line for line in lines if _NAMED_ERROR.match(line)]
    return telling[-1] if telling else lines[0] if lines else "it was stopped"
