"""The serve phase on one machine: warm state, feed, stream; and its result."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from app import contract
from app.clock import system_clock
from app.dataset.spec import Spec
from app.errors import AlreadyServed, ObjectMissing, ServingError
from app.ingest.plan import Plan, read_plan
from app.metrics import Emit, emitter
from app.processes import Child
from app.progress import Report
from app.serving.batch_metrics import BatchMetrics
from app.serving.checkpoint import CheckpointFolder, checkpoint_uri
from app.serving.score_bucket import StreamPlace
from app.serving.scoring import current_model_id, read_spec
from app.serving.sink import PredictionSink
from app.serving.stream import run_stream, start_spark
from app.serving.warm import write_warm_state
from app.settings import Place, Settings
from app.storage import Bucket
from app.tables import get_table


def run_serving(
    place: Place,
    settings: Settings,
    environ: Mapping[str, str],
    report: Report,
    finish: Callable[[dict[str, Any]], None],
    *,
    checkpoint: str | None = None,
    with_feed: bool = True,
) -> None:
    """Score the last session of the run's plan as it is replayed.

    finish: stores the phase's result; the checkpoint is removed only after it. checkpoint: folder, or URI of
    a file system that Spark reaches, below which it keeps offsets and state, by default in the machine's
    temporary folder; a restarted stream goes on from there. with_feed: start the replay too; otherwise
    somebody else runs `stockflow feed`. Raises AlreadyServed, and ServingError when the stream or the feed
    fails, or no tick gave a prediction.
    """
    market, models, predictions = (
        Bucket(name) for name in (place.market_bucket, place.model_bucket, place.predictions_bucket)
    )
    plan = read_plan(place.run_id, market)
    model_id = current_model_id(models)
    spec = read_spec(models, model_id)
    stream = StreamPlace(place.run_id, market.name, models.name, model_id, plan.sessions)
    if market.exists(contract.result_key(place.run_id, "serve")):
        raise AlreadyServed(place.run_id)
    total = _expected(plan, market) * len(spec.horizons_min)
    metrics = BatchMetrics(market, place.run_id, system_clock, _emitter(environ))

    def on_batch(rows: int, newest_ts: int) -> None:
        report(sink.written, total, "predictions")
        metrics(rows, newest_ts)

    sink = PredictionSink(predictions, place.run_id, system_clock, on_batch)
    spark = start_spark(settings.serving)
    try:
        folder = CheckpointFolder(spark, checkpoint_uri(checkpoint, _stream_id(place.run_id, market)))
        _refuse_to_double(place.run_id, predictions, folder)
        write_warm_state(place.run_id, market, plan.sessions, plan.sessions[-1], plan.tickers, spec)
        report(0, total, "predictions")
        with _feed(settings, environ, with_feed) as feed_alive:
            run_stream(spark, stream, settings.serving, sink, folder.uri, feed_alive, metrics.alive)
        finish(_result(plan, model_id, spec, market, predictions))
        with suppress(ServingError):  # the run is served: a checkpoint that stays is of no use and no harm
            folder.remove()
    finally:
        spark.stop()


def _result(plan: Plan, model_id: str, spec: Spec, market: Bucket, predictions: Bucket) -> dict[str, Any]:
    """What the phase stores at its end; ServingError when there were ticks and no prediction came of them."""
    fed = market.get_json(contract.feed_end_key(plan.run_id))
    written = _count_predictions(predictions, plan.run_id)
    if fed["ticks"] and not written:
        raise ServingError(f"none of {fed['ticks']} ticks completed a window of {spec.window_min} minutes")
    day = plan.sessions[-1].day.isoformat()
    return {
        "rows": written,
        "where": f"s3://{predictions.name}/{contract.PREDICTIONS_PREFIX}dt={day}/",
        "model_id": model_id,
        "horizons_min": list(spec.horizons_min),
        "day": day,
        "ticks": fed["ticks"],
        "minutes": fed["objects"],
        "predictions": written,
    }


def _stream_id(run_id: str, market: Bucket) -> str:
    """The name of the run's stream, given once: a checkpoint of another bucket's run of this name is not taken."""
    key = contract.stream_key(run_id)
    try:
        return str(market.get_json(key)["stream_id"])
    except ObjectMissing:
        stream_id = f"{run_id}-{uuid.uuid4().hex[:12]}"
        market.put_json(key, {"stream_id": stream_id})
        return stream_id


def _count_predictions(predictions: Bucket, run_id: str) -> int:
    """Stored predictions of a run, those of a stream before a restart included."""
    keys = [k for k in predictions.keys(contract.PREDICTIONS_PREFIX) if contract.predictions_run(k) == run_id]
    return sum(len(get_table(predictions, key, ["ticker"])) for key in keys)


def feed_command() -> list[str]:
    """The feed as a process of its own."""
    return [sys.executable, "-m", "app.cli", "feed"]


@contextmanager
def _feed(settings: Settings, environ: Mapping[str, str], wanted: bool) -> Iterator[Callable[[], bool]]:
    """Our own feed, where it is wanted, while the stream runs; yields the check that it is at work."""
    if not wanted:
        yield _feed_check(None)
        return
    variables = {**environ, contract.ENV_SETTINGS: settings.model_dump_json(), contract.ENV_PROGRESS: "json"}
    feed = Child(feed_command(), variables, on_line=lambda line: None)
    try:
        yield _feed_check(feed)
    finally:
        feed.stop()


def _feed_check(feed: Child | None) -> Callable[[], bool]:
    """Whether our own feed is at work; raises ServingError when it has failed."""

    def feed_alive() -> bool:
        status = None if feed is None else feed.poll()
        if feed is not None and status not in (None, 0):
            raise ServingError(f"the feed ended with status {status}: {feed.last_error()}")
        return feed is not None and status is None

    return feed_alive


def _expected(plan: Plan, market: Bucket) -> int:
    """Ticks that the replay will hold, for the progress line; at most, when the run ingested nothing itself."""
    try:
        coverage = market.get_json(contract.coverage_key(plan.run_id))
    except ObjectMissing:
        return plan.sessions[-1].minutes * len(plan.tickers)
    day = plan.sessions[-1].day.isoformat()
    held = [t for t in coverage["tickers"] if t["rows"]]
    return sum(plan.sessions[-1].minutes - int(t["missing"].get(day, 0)) for t in held)


def _refuse_to_double(run_id: str, predictions: Bucket, checkpoint: CheckpointFolder) -> None:
    """A stream goes on from its checkpoint or starts afresh, but never scores the same ticks into new keys."""
    if not checkpoint.exists() and _count_predictions(predictions, run_id):
        raise ServingError(f"run {run_id} has predictions but no checkpoint at {checkpoint.uri}: start a new run id")


def _emitter(environ: Mapping[str, str]) -> Emit:
    """How metrics are published: nowhere from a terminal, where a person reads the progress instead."""
    if sys.stdout.isatty() and contract.ENV_METRICS_LOG_GROUP not in environ:
        return lambda metrics: None
    return emitter(environ)
