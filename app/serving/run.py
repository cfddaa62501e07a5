"""The serve phase: warm state, feed, stream; and its result."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from typing import Any, Final

from pyspark.sql import SparkSession

from app import contract
from app.clock import Clock, system_clock
from app.dataset.spec import Spec
from app.errors import AlreadyServed, ObjectMissing, ServingError
from app.ingest.plan import Plan, read_plan
from app.metrics import Emit, emitter
from app.processes import Child, StopSignals, stop_signals
from app.progress import Report
from app.serving.batch_metrics import BatchMetrics
from app.serving.begun import begin_stream
from app.serving.checkpoint import CheckpointFolder, checkpoint_uri
from app.serving.feed import FEED_SAYS, served_session
from app.serving.health import StreamHealth
from app.serving.score_bucket import StreamPlace
from app.serving.scoring import checked_scorer, promoted_model, read_spec
from app.serving.sink import BatchSummary, Before, PredictionSink, next_micro_batch, stored_before
from app.serving.sources import Begin, make_source
from app.serving.stream import Watch, run_stream, running_spark
from app.serving.stream_bucket import stream_bucket
from app.serving.stream_reader import Offset
from app.serving.warm import WARM_SESSIONS, write_warm_state
from app.sessions import Session, sessions_between
from app.settings import Place, ServingSettings, Settings
from app.storage import Bucket
from app.tables import get_table

_WARM_DAYS: Final = timedelta(days=14)
"""In which there are sessions enough, whatever the holidays."""
_FEED_MARGIN_S: Final = 120.0
"""What the last poll of a live feed may take after `serving.grace_s`."""


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
    """Score the session that the run's feed brings.

    finish: stores the phase's result; the checkpoint is removed only after it. checkpoint: folder, or URI of
    a file system that Spark reaches, below which it keeps offsets and state, by default in the machine's
    temporary folder; a restarted stream goes on from there. with_feed: start the feed too; otherwise
    somebody else runs `stockflow feed`. SIGTERM and SIGINT end it after the micro-batch that runs, and a second one
    at once. Raises AlreadyServed, and ServingError when the stream or the feed fails, no tick gave a prediction, or a
    checkpoint belongs to other settings. One that is lost is no loss: see _checkpoint.
    """
    market, models, predictions = (
        Bucket(name) for name in (place.market_bucket, place.model_bucket, place.predictions_bucket)
    )
    clock, serving = system_clock, settings.serving
    plan = read_plan(place.run_id, market)
    session = served_session(plan, serving.feed, clock(), market)
    sessions = plan.sessions if serving.feed == "replay" else _with_those_before(session)
    if market.exists(contract.result_key(place.run_id, "serve")):
        raise AlreadyServed(place.run_id)
    if not market.exists(contract.stream_key(place.run_id)):
        promoted_model(models)  # told before Java starts
    with running_spark(serving) as spark:
        folder, before = _checkpoint(spark, checkpoint, place.run_id, serving, market, predictions, session.day)
        planned = folder.planned()
        model_id, spec = _model(models, planned)
        total = _expected(plan, session, market) * len(spec.horizons_min)
        health = StreamHealth(market, place.run_id, clock, model_id, resumed=bool(planned))
        metrics = BatchMetrics(clock, _emitter(environ))

        def on_batch(summary: BatchSummary) -> None:
            report(sink.written, total, "predictions")
            metrics.add(summary)
            health.add(summary)

        stored = stream_bucket(predictions.name)
        sink = PredictionSink(stored, place.run_id, clock, serving.object_rows, on_batch, before)
        if not planned:  # a ticker that comes later starts from the same windows after a restart
            write_warm_state(place.run_id, market, sessions, session, plan.tickers, spec, serving.watermark_min)
        report(0, total, "predictions")
        known = frozenset(plan.tickers), sessions, session.open_ts
        stream = StreamPlace(place.run_id, market.name, models.name, *known, serving.watermark_min)
        source = make_source(Begin(place.run_id, models.name, model_id, planned), serving, market)
        with health:
            with stop_signals() as stopped, _feed(settings, environ, with_feed) as feed_alive:
                hours = None if serving.feed == "replay" else _Hours(session, serving.grace_s, clock)
                watch = _Watch(feed_alive, hours, stopped, metrics, health)
                run_stream(spark, stream, serving, source, sink, folder, watch)
                metrics.publish()
            # All is predicted: an S3 that fails for a while shall not be the end now.
            finish(_result(plan, session, health, spec, stream_bucket(market.name), stored))
        with suppress(ServingError):  # the run is served: a checkpoint that stays is of no use and no harm
            folder.remove()


def _with_those_before(session: Session) -> tuple[Session, ...]:
    """A session of the running market and, by the exchange's calendar, those before it that windows are warmed from."""
    return tuple(sessions_between(session.day - _WARM_DAYS, session.day)[-1 - WARM_SESSIONS :])


def _checkpoint(
    spark: SparkSession,
    parent: str | None,
    run_id: str,
    settings: ServingSettings,
    market: Bucket,
    predictions: Bucket,
    day: date,
) -> tuple[CheckpointFolder, Before]:
    """The folder that the run's stream goes on from, and what is stored from before that folder's first micro-batch.

    Where the folder is gone, though predictions are stored, the stream begins again in a new one, from the first tick,
    and leaves out what is stored.
    """
    stream = begin_stream(run_id, settings, market)
    folder = CheckpointFolder(spark, checkpoint_uri(parent, stream.stream_id))
    if not folder.exists() and (after := next_micro_batch(predictions, run_id, day)):
        stream = begin_stream(run_id, settings, market, instead_of=stream, micro_batches=after)
        folder = CheckpointFolder(spark, checkpoint_uri(parent, stream.stream_id))
    return folder, stored_before(predictions, run_id, day, stream.micro_batches)


def _model(models: Bucket, planned: str) -> tuple[str, Spec]:
    """The model of the last micro-batch that was planned, else the promoted one, which must be able to forecast."""
    if planned:
        model_id = str(json.loads(planned)["model_id"])
        return model_id, read_spec(models, model_id)
    promoted = promoted_model(models)
    try:
        return promoted.model_id, checked_scorer(models, promoted).spec
    except ServingError as exc:
        raise ServingError(f"model {promoted.model_id} cannot serve: {exc}: promote another one") from exc


class _Hours:
    """When a feed of the running market has ticks, by the exchange's calendar."""

    def __init__(self, session: Session, grace_s: float, clock: Clock) -> None:
        self._first_s = session.open_ts + contract.BAR_S
        self._last_s = session.close_ts + grace_s + _FEED_MARGIN_S
        self._clock = clock

    def begun(self) -> bool:
        """Whether the first bar has closed."""
        return self._clock().timestamp() >= self._first_s

    def over(self) -> bool:
        """Whether the feed must have ended."""
        return self._clock().timestamp() > self._last_s


class _Watch(Watch):
    """The stream's feed, metrics and health. hours: None for a replay."""

    def __init__(
        self,
        feed_alive: Callable[[], bool],
        hours: _Hours | None,
        stopped: StopSignals,
        metrics: BatchMetrics,
        health: StreamHealth,
    ) -> None:
        self._stopped, self._metrics, self._health = stopped, metrics, health
        self._feed_alive, self._hours = feed_alive, hours

    def feed_alive(self) -> bool:
        """Before the open and in a halt of trading no feed has ticks, whoever runs it."""
        alive = self._feed_alive()
        return alive if self._hours is None else not self._hours.over()

    def over(self) -> bool:
        return self._hours is not None and self._hours.over()

    def stopping(self) -> bool:
        return self._stopped.asked

    def polled(self) -> None:
        self._metrics.publish()
        if self._hours is None or self._hours.begun():
            self._metrics.alive()
        self._health.write_now_and_then()

    def done(self, offset: Offset, began_s: float, took_s: float) -> None:
        self._metrics.done(offset, began_s, took_s)
        self._health.done(offset)


def _result(
    plan: Plan, session: Session, health: StreamHealth, spec: Spec, market: Bucket, predictions: Bucket
) -> dict[str, Any]:
    """What the phase stores at its end; ServingError when no prediction was made."""
    fed = _fed(plan, session, health, market)
    day, written = session.day.isoformat(), _count_predictions(predictions, plan.run_id, session.day)
    if not written and not fed["ticks"]:
        raise ServingError(f"no tick of {day} came: start `stockflow feed` beside the stream")
    if not written:
        raise ServingError(f"none of {fed['ticks']} ticks completed a window of {spec.window_min} minutes")
    return {
        "rows": written,
        "where": f"s3://{predictions.name}/{contract.predictions_day_prefix(session.day)}",
        "model_id": health.model_id,
        "horizons_min": list(spec.horizons_min),
        "day": day,
        "ticks": fed["ticks"],
        "minutes": fed["objects"],
        "predictions": written,
        "counted": health.counted,
    }


def _fed(plan: Plan, session: Session, health: StreamHealth, market: Bucket) -> dict[str, Any]:
    """What the feed says that it brought; of one that did not come to its end, what the stream has taken."""
    try:
        fed: dict[str, Any] = market.get_json(contract.feed_end_key(plan.run_id))
    except ObjectMissing:
        again = health.counted["duplicate"] + health.counted["revised"]
        fed = {"ticks": health.counted["ticks"] - again, "objects": session.minutes}
    return fed


def _count_predictions(predictions: Bucket, run_id: str, day: date) -> int:
    """Stored predictions of a run's session, those of a stream before a restart included."""
    found = predictions.keys(contract.predictions_run_prefix(day, run_id))
    return sum(len(get_table(predictions, key, ["ticker"])) for key in contract.predictions_of_run(found, run_id))


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
    feed = Child(feed_command(), variables, on_line=lambda line: None, on_error=_pass_on)
    try:
        yield _feed_check(feed)
    finally:
        feed.stop()


def _pass_on(line: str) -> None:
    """What the feed says while it runs; its last word is told by _feed_check."""
    if line.startswith(FEED_SAYS):
        print(line, file=sys.stderr, flush=True)


def _feed_check(feed: Child | None) -> Callable[[], bool]:
    """Whether our own feed is at work; raises ServingError when it has failed."""

    def feed_alive() -> bool:
        status = None if feed is None else feed.poll()
        if feed is not None and status not in (None, 0):
            raise ServingError(f"the feed ended with status {status}: {feed.last_error()}")
        return feed is not None and status is None

    return feed_alive


def _expected(plan: Plan, session: Session, market: Bucket) -> int:
    """Ticks that a replay will hold, for the progress line; at most, when they are not known."""
    try:
        coverage = market.get_json(contract.coverage_key(plan.run_id))
    except ObjectMissing:
        return session.minutes * len(plan.tickers)
    day = session.day.isoformat()
    held = [t for t in coverage["tickers"] if t["rows"]]
    return sum(session.minutes - int(t["missing"].get(day, 0)) for t in held)


def _emitter(environ: Mapping[str, str]) -> Emit:
    """How metrics are published: nowhere from a terminal, where a person reads the progress instead."""
    if sys.stdout.isatty() and contract.ENV_METRICS_LOG_GROUP not in environ:
        return lambda metrics: None
    return emitter(environ)
