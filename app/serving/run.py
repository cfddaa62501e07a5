"""The serve phase on one machine: warm state, feed, stream; and its result."""

from __future__ import annotations

import shutil
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app import contract
from app.clock import system_clock
from app.errors import ObjectMissing, ServingError
from app.ingest.plan import Plan
from app.ingest.run import read_plan
from app.processes import Child
from app.progress import Report
from app.serving.score_bucket import StreamPlace
from app.serving.scoring import current_model_id, read_spec
from app.serving.sink import PredictionSink
from app.serving.stream import run_stream, start_spark
from app.serving.warm import write_warm_state
from app.settings import Place, Settings
from app.storage import Bucket


def run_serving(
    place: Place,
    settings: Settings,
    environ: Mapping[str, str],
    report: Report,
    *,
    checkpoint: Path | None = None,
    with_feed: bool = True,
) -> dict[str, Any]:
    """Score the last session of the run's plan as it is replayed; returns the phase's result.

    checkpoint: folder below which Spark keeps offsets and state, by default in the machine's temporary one;
    a restarted stream goes on from there, a finished one removes its part. with_feed: start the replay too; otherwise
    somebody else runs `stockflow feed`.
    """
    market, models, predictions = (
        Bucket(name) for name in (place.market_bucket, place.model_bucket, place.predictions_bucket)
    )
    plan = read_plan(place.run_id, market)
    session = plan.sessions[-1]
    model_id = current_model_id(models)
    spec = read_spec(models, model_id)
    checkpoint = (checkpoint or Path(tempfile.gettempdir(), "stockflow-streams")) / _stream_id(place.run_id, market)
    _refuse_a_second_time(place, market, predictions, checkpoint)
    total = _expected(plan, market)
    spark = start_spark(settings.serving)
    sink = PredictionSink(predictions, place.run_id, system_clock, lambda rows: report(rows, total, "predictions"))
    write_warm_state(place.run_id, market, plan.sessions, session, plan.tickers, spec.window_min)
    stream = StreamPlace(
        run_id=place.run_id,
        market_bucket=market.name,
        model_bucket=models.name,
        model_id=model_id,
        window_min=spec.window_min,
        sessions=plan.sessions,
    )
    report(0, total, "predictions")
    feed = _start_feed(settings, environ) if with_feed else None
    try:
        run_stream(spark, stream, settings.serving, sink, checkpoint, _watch(feed))
    finally:
        if feed is not None:
            feed.stop()
        spark.stop()
    written = _count_predictions(predictions, place.run_id)
    shutil.rmtree(checkpoint, ignore_errors=True)  # the run counts as served from here on
    fed = market.get_json(contract.feed_end_key(place.run_id))
    return {
        "rows": written,
        "where": f"s3://{predictions.name}/{contract.PREDICTIONS_PREFIX}dt={session.day.isoformat()}/",
        "model_id": model_id,
        "day": session.day.isoformat(),
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
    keys = [key for key in predictions.keys(contract.PREDICTIONS_PREFIX) if f"/{run_id}-" in key]
    return sum(len(predictions.get_table(key, ["ticker"])) for key in keys)


def feed_command() -> list[str]:
    """The feed as a process of its own."""
    return [sys.executable, "-m", "app.cli", "feed"]


def _start_feed(settings: Settings, environ: Mapping[str, str]) -> Child:
    variables = {**environ, contract.ENV_SETTINGS: settings.model_dump_json(), contract.ENV_PROGRESS: "json"}
    return Child(feed_command(), variables, on_line=lambda line: None)


def _watch(feed: Child | None) -> Any:
    def feed_alive() -> None:
        if feed is not None and feed.poll() not in (None, 0):
            raise ServingError(f"the feed ended with status {feed.poll()}: {feed.last_error()}")

    return feed_alive


def _expected(plan: Plan, market: Bucket) -> int:
    """Ticks that the replay will hold, for the progress line."""
    coverage = market.get_json(contract.coverage_key(plan.run_id))
    day = plan.sessions[-1].day.isoformat()
    held = [t for t in coverage["tickers"] if t["rows"]]
    return sum(plan.sessions[-1].minutes - int(t["missing"].get(day, 0)) for t in held)


def _refuse_a_second_time(place: Place, market: Bucket, predictions: Bucket, checkpoint: Path) -> None:
    """A stream goes on from its checkpoint or starts afresh, but never scores the same ticks into new keys."""
    if market.exists(contract.result_key(place.run_id, "serve")):
        raise ServingError(f"run {place.run_id} has been served: start a new run id")
    if not checkpoint.exists() and _count_predictions(predictions, place.run_id):
        raise ServingError(f"run {place.run_id} has predictions but no checkpoint at {checkpoint}: start a new run id")
