"""The Spark application: ticks -> state and forecasts in the workers -> predictions in S3."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql.functions import expr
from pyspark.sql.streaming.listener import StreamingQueryProgress
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.state import GroupStateTimeout

from app import contract
from app.errors import ServingError
from app.processes import find_java
from app.serving.checkpoint import CheckpointFolder
from app.serving.kinesis_source import KinesisTickSource
from app.serving.score_bucket import OUTPUT_SCHEMA, STATE_SCHEMA, StreamPlace, bucket_scorer
from app.serving.sink import PredictionSink
from app.serving.sources import Source
from app.serving.stream_reader import Offset
from app.serving.tick_source import TickSource
from app.settings import ServingSettings

_SUBMITTED = "PYSPARK_GATEWAY_PORT"
"""Set by spark-submit for the Python program that it starts."""
_AWS_VARIABLES = ("AWS_DEFAULT_REGION", "AWS_REGION", contract.ENV_AWS_ENDPOINT_URL)
_NAMED_ERROR = re.compile(r"[\w.]*(Error|Exception): \S")
"""How a Python traceback ends."""
_JAVA_GONE = (Py4JError, ConnectionRefusedError, ConnectionResetError)
"""What a call to Java raises once it has ended; and Py4JJavaError, which it raises while it lives."""
_FILES = "org.apache.spark.sql.execution.streaming.FileSystemBasedCheckpointFileManager"
_KEYS_TRIED = 64
"""For each bucket: a partition that none of so many keys falls to is not to be feared."""
_TRIES = 4
"""Of a task, as on a cluster: a worker that dies is not the stream's end."""
_KEPT_BATCHES = 10
"""Micro-batches whose offsets and changes of state stay in the checkpoint; Spark's own number is 100."""
_PROGRESS_KEPT = 20
"""Micro-batches that may end between two looks at the query, each a document of some kilobytes to read."""
_FINISH_S = 120.0
_FINISH_POLL_S = 0.05


def start_spark(settings: ServingSettings) -> SparkSession:
    """A Spark session: the cluster's where spark-submit started this program, else one on this machine's cores.

    Raises MissingProgram without a Java runtime and ServingError when Java does not start Spark.
    """
    builder = SparkSession.builder.appName("stockflow")
    builder = _on_the_cluster(builder) if _SUBMITTED in os.environ else _on_this_machine(builder, settings)
    builder = (
        builder.config("spark.sql.shuffle.partitions", settings.partitions)
        .config("spark.sql.streaming.minBatchesToRetain", _KEPT_BATCHES)
        .config("spark.sql.streaming.numRecentProgressUpdates", _PROGRESS_KEPT)
    )
    try:
        spark = builder.config("spark.sql.session.timeZone", "UTC").getOrCreate()
    except PySparkException as exc:
        raise ServingError(f"Java did not start Spark ({exc}): is it a Java 17 runtime?") from exc
    for source in (TickSource, KinesisTickSource):
        spark.dataSource.register(source)
    return spark


@contextmanager
def running_spark(settings: ServingSettings) -> Iterator[SparkSession]:
    """As start_spark, and stopped afterwards. ServingError when Java ends meanwhile, whatever was asked of it then."""
    spark: SparkSession | None = None
    try:
        spark = start_spark(settings)
        yield spark
    except Py4JJavaError:
        raise
    except _JAVA_GONE as exc:
        raise ServingError("Java ended while the stream ran: start the phase again, it goes on from its state") from exc
    finally:
        if spark is not None:
            with suppress(*_JAVA_GONE):
                spark.stop()


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
        builder.master(f"local[{settings.partitions},{_TRIES}]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.log.level", "ERROR")
        .config("spark.driver.memory", "1g")
        # The default one forks programs such as chmod for every file of the checkpoint: 60 ms of each micro-batch.
        .config("spark.sql.streaming.checkpointFileManagerClass", _FILES)
    )


def bucket_keys(spark: SparkSession, buckets: int, partitions: int) -> list[int]:
    """A key for each bucket, by which Spark deals the buckets to its partitions in turn.

    Spark puts a key into the partition of its hash: the numbers 0 and 1 both into the first one of two.
    """
    hashed = spark.range(_KEYS_TRIED * buckets).select("id", expr(f"pmod(hash(id), {partitions})").alias("partition"))
    keys: dict[int, list[int]] = {partition: [] for partition in range(partitions)}
    for key, partition in hashed.collect():
        keys[partition].append(key)
    return [keys[bucket % partitions][bucket // partitions] for bucket in range(buckets)]


def start_query(
    spark: SparkSession,
    place: StreamPlace,
    settings: ServingSettings,
    source: Source,
    sink: PredictionSink,
    checkpoint: CheckpointFolder,
) -> StreamingQuery:
    """Let predictions stream from the source into the sink: all tickers of a micro-batch scored together, by bucket."""
    keys = ", ".join(f"{key}L" for key in bucket_keys(spark, settings.buckets, settings.partitions))
    ticks = spark.readStream.format(source.name).options(**source.options).load()
    bucket = expr(f"element_at(array({keys}), int(pmod(xxhash64(ticker), {settings.buckets})) + 1)")
    forecasts = (
        ticks.withColumn("bucket", bucket)
        .groupBy("bucket")
        .applyInPandasWithState(
            bucket_scorer(place), OUTPUT_SCHEMA, STATE_SCHEMA, "append", GroupStateTimeout.NoTimeout
        )
    )
    return (
        forecasts.writeStream.foreachBatch(sink)
        .option("checkpointLocation", checkpoint.uri)
        .trigger(processingTime=f"{settings.trigger_s} seconds")
        .start()
    )


def run_stream(
    spark: SparkSession,
    place: StreamPlace,
    settings: ServingSettings,
    source: Source,
    sink: PredictionSink,
    checkpoint: CheckpointFolder,
    watch: Watch,
) -> None:
    """Run the query until the feed has ended and its last tick is scored, or until it is to stop.

    A micro-batch that has begun is finished. When nothing arrives for `idle_timeout_s` it ends too where the watch says
    that the feed is over, and else is a ServingError, as a query that fails.
    """
    done = checkpoint.done()
    query = start_query(spark, place, settings, source, sink, checkpoint)
    try:
        _until_fed(query, settings, source, watch, json.loads(done)["at"] if done else None)
    finally:
        with suppress(*_JAVA_GONE):
            query.stop()


class Watch:
    """What the stream asks and tells while it runs: nothing, unless a subclass says otherwise."""

    def feed_alive(self) -> bool:
        """Whether a feed of ours is at work, so that a quiet market is no fault; raises when it has failed."""
        return False

    def over(self) -> bool:
        """Whether a feed that has not said that it ended will bring nothing more."""
        return False

    def stopping(self) -> bool:
        """Whether the stream is to end before the feed does."""
        return False

    def polled(self) -> None:
        """Called every `poll_s`."""

    def done(self, offset: Offset, began_s: float, took_s: float) -> None:
        """Called for a micro-batch that is done: where it ended, when it began (epoch s) and how long it took."""


def _until_fed(query: StreamingQuery, settings: ServingSettings, source: Source, watch: Watch, at: Any) -> None:
    """at: the place up to which micro-batches were done before; None without one."""
    end: Any = None
    told, moved_s = -1, time.monotonic()
    while True:
        time.sleep(settings.poll_s)
        watch.polled()
        if not query.isActive:
            raise ServingError(f"the stream failed: {_cause(query.exception())}")
        for progress in query.recentProgress:
            if progress.batchId > told and progress.numInputRows:
                told, moved_s = progress.batchId, time.monotonic()
                at = _tell(watch, progress)
        end = source.end() if end is None else end
        if end is not None and source.reached(at, end):
            return
        if watch.stopping():
            _finish_micro_batch(query)
            return
        if end is None and watch.feed_alive():
            moved_s = time.monotonic()
        if time.monotonic() - moved_s > settings.idle_timeout_s:
            if watch.over():
                return
            raise ServingError(
                f"no tick for {settings.idle_timeout_s:g} s from {source.where}:"
                " start `stockflow feed`, or raise serving.idle_timeout_s"
            )


def _tell(watch: Watch, progress: StreamingQueryProgress) -> Any:
    """Tell of a micro-batch that is done; returns its place."""
    offset: Offset = json.loads(progress.json)["sources"][0]["endOffset"]
    began_s = datetime.fromisoformat(progress.timestamp).timestamp()
    watch.done(offset, began_s, progress.durationMs["triggerExecution"] / 1000)
    return offset["at"]


def _finish_micro_batch(query: StreamingQuery) -> None:
    """Wait for the micro-batch that runs; the next one, if it has begun, is run again at the next start."""
    until_s = time.monotonic() + _FINISH_S
    running = query.lastProgress.batchId if query.lastProgress else -1
    while query.isActive and query.status["isTriggerActive"] and time.monotonic() < until_s:
        if query.lastProgress and query.lastProgress.batchId > running:
            return
        time.sleep(_FINISH_POLL_S)


def _cause(exc: Exception | None) -> str:
    """The telling line of an error in a worker or in the sink, inside Spark's long message."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith(("app.errors.", "botocore.", "onnxruntime."))]
    telling = ours or [line for line in lines if _NAMED_ERROR.match(line)]
    return telling[-1] if telling else lines[0] if lines else "it was stopped"
