"""The serve phase on one machine: warm state, feed, stream; and its result."""

from __future__ import annotations

import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from app import contract
from app.clock import system_clock
from app.errors import ObjectMissing, ServingError
from app.ingest.plan import Plan, read_plan
from app.processes import Child
from app.progress import Report
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
    checkpoint: Path | None = None,
    with_feed: bool = True,
) -> None:
    """Score the last session of the run's plan as it is replayed.

    finish: stores the phase's result; the checkpoint is removed only after it. checkpoint: folder below
    which Spark keeps offsets and state, by default in the machine's temporary one; a restarted stream goes
    on from there. with_feed: start the replay too; otherwise somebody else runs `stockflow feed`.
    Raises ServingError when the run has been served, the stream or the feed fails, or no tick gave a prediction.
    """
    market, models, predictions = (
        Bucket(name) for name in (place.market_bucket, place.model_bucket, place.predictions_bucket)
    )
    plan = read_plan(place.run_id, market)
    session = plan.sessions[-1]
    model_id = current_model_id(models)
    window_min = read_spec(models, model_id).window_min
    folder = (checkpoint or Path(tempfile.gettempdir(), "stockflow-streams")) / _stream_id(place.run_id, market)
    _refuse_a_second_time(place, market, predictions, folder)
    total = _expected(plan, market)
    spark = start_spark(settings.serving)
    sink = PredictionSink(predictions, place.run_id, system_clock, lambda rows: report(rows, total, "predictions"))
    write_warm_state(place.run_id, market, plan.sessions, session, plan.tickers, window_min)
    stream = StreamPlace(place.run_id, market.name, models.name, model_id, window_min, plan.sessions)
    report(0, total, "predictions")
    feed = _start_feed(settings, environ) if with_feed else None
    try:
        run_stream(spark, stream, settings.serving, sink, folder, _feed_check(feed))
    finally:
        if feed is not None:
            feed.stop()
        spark.stop()
    fed = market.get_json(contract.feed_end_key(place.run_id))
    written = _count_predictions(predictions, place.run_id)
    if fed["ticks"] and not written:
        raise ServingError(f"none of {fed['ticks']} ticks completed a window of {window_min} minutes")
    finish(
        {
            "rows": written,
            "where": f"s3://{predictions.name}/{contract.PREDICTIONS_PREFIX}dt={session.day.isoformat()}/",
            "model_id": model_id,
            "day": session.day.isoformat(),
            "ticks": fed["ticks"],
            "minutes": fed["objects"],
            "predictions": written,
        }
    )
    shutil.rmtree(folder, ignore_errors=True)


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


def _start_feed(settings: Settings, environ: Mapping[str, str]) -> Child:
    variables = {**environ, contract.ENV_SETTINGS: settings.model_dump_json(), contract.ENV_PROGRESS: "json"}
    return Child(feed_command(), variables, on_line=lambda line: None)


def _feed_check(feed: Child | None) -> Callable[[], bool]:
    """Whether our own feed is at work; raises ServingError when it has failed."""

    def feed_alive() -> bool:
        status = None if feed is None else feed.poll()
        if feed is not None and status not in (None, 0):
            raise ServingError(f"the feed ended with status {status}: {feed.last_error()}")
        return feed is not None and status is None

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
