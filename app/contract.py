"""What the phases agree on: object keys, environment variables, schemas and feature names.

This module is the only place where they are spelled. It imports the standard library alone, so that
a Lambda, a Spark worker, the CDK app and a consumer can all import it.

Buckets and keys
----------------
market bucket
    ``bars/dt=YYYY-MM-DD/<part>.parquet``             1-minute bars of one session: of a run's shard, or compacted
    ``answers/dt=YYYY-MM-DD/<part>.json``             beside it: when Yahoo was asked last, and for what it has no bar
    ``ticks/<run>/dt=YYYY-MM-DD/<epoch_ms>-<seq>.parquet``  one poll of the market; keys ascend with time
    ``runs/<run>/...``                                plan, journals, manifests and results of one run
model bucket
    ``datasets/<run>/...``                            dense feature tables and their spec
    ``models/<model>/...``                            weights, ONNX, spec, metrics, checkpoints
    ``models/begun/<run>.json``                       the model that a run trains, while it does
    ``models/candidates/<run>.json``                  the model that a run trained, before the gate
    ``models/current.json``                           the pointer that serving follows
    ``training-jobs/<job>/...``                       what a training job leaves or tells its nodes; expires
predictions bucket
    ``predictions/dt=YYYY-MM-DD/<run>-<micro-batch>.parquet``  those of this micro-batch and of some that followed
    ``latest.json``                       the newest prediction of each ticker

Every object is written whole under its final, deterministic key: a repeat overwrites it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Final, NamedTuple

# --- environment ---------------------------------------------------------------------------------

ENV_MARKET_BUCKET: Final = "STOCKFLOW_MARKET_BUCKET"
ENV_MODEL_BUCKET: Final = "STOCKFLOW_MODEL_BUCKET"
ENV_PREDICTIONS_BUCKET: Final = "STOCKFLOW_PREDICTIONS_BUCKET"
ENV_RUN_ID: Final = "STOCKFLOW_RUN_ID"
ENV_DATASET_RUN: Final = "STOCKFLOW_DATASET_RUN"
"""The run whose dataset is trained on; unset means the run itself."""
ENV_YAHOO_URL: Final = "STOCKFLOW_YAHOO_URL"
"""Base URL of a server that speaks Yahoo's chart API; unset means Yahoo itself."""
ENV_YAHOO_STREAM_URL: Final = "STOCKFLOW_YAHOO_STREAM_URL"
"""URL of a websocket that tells prices as Yahoo's does; unset means Yahoo's."""
ENV_SP500_URL: Final = "STOCKFLOW_SP500_URL"
"""URL of a CSV table with a column Symbol: the universe `sp500`; unset means the public one."""
ENV_NOW: Final = "STOCKFLOW_NOW"
"""ISO 8601 instant at which the run's clock stands; unset means the machine's clock."""
ENV_SETTINGS: Final = "STOCKFLOW_SETTINGS"
"""JSON object of setting overrides, ``{"training": {"epochs": 3}}``."""
ENV_SETTINGS_FILE: Final = "STOCKFLOW_SETTINGS_FILE"
"""The settings file of a command line; unset means the one of the current folder, if there is one, empty means none."""
ENV_PROGRESS: Final = "STOCKFLOW_PROGRESS"
"""``json`` makes a phase print its progress as JSON lines on standard output."""
ENV_CACHE_DIR: Final = "STOCKFLOW_CACHE_DIR"
"""Where what was compiled for this machine is kept; by default in the user's cache."""
ENV_AWS_ENDPOINT_URL: Final = "AWS_ENDPOINT_URL"
"""boto3's own variable; set by the embedded AWS."""
ENV_ARRAY_INDEX: Final = "AWS_BATCH_JOB_ARRAY_INDEX"
"""AWS Batch's own variable: the number of a child of an array job, which is its shard."""
ENV_JOB_ATTEMPT: Final = "AWS_BATCH_JOB_ATTEMPT"
"""AWS Batch's own variable: which attempt at a job this is, from 1."""
ENV_JOB_ID: Final = "AWS_BATCH_JOB_ID"
"""AWS Batch's own variable; of a node of a multi-node job: the job's id, ``#`` and the node's index."""
ENV_NODES: Final = "AWS_BATCH_JOB_NUM_NODES"
ENV_NODE: Final = "AWS_BATCH_JOB_NODE_INDEX"
ENV_MAIN_NODE: Final = "AWS_BATCH_JOB_MAIN_NODE_INDEX"
ENV_MAIN_NODE_ADDRESS: Final = "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"
"""AWS Batch's own variables on every node of a multi-node job; the last one is unset on the main node."""
ENV_RANK: Final = "OMPI_COMM_WORLD_RANK"
"""A rank's number, by mpirun: known before the ranks have met."""
ENV_SHARD_ATTEMPTS: Final = "STOCKFLOW_SHARD_ATTEMPTS"
"""How often Batch tries a shard; unset means that nobody tries it again."""
ENV_DATASET_FOLDER: Final = "SM_CHANNEL_DATASET"
"""SageMaker's own variable: folder of the input channel `dataset`; unset means the model bucket."""
ENV_OUTPUT_FOLDER: Final = "SM_OUTPUT_DIR"
"""SageMaker's own variable: folder whose file `failure` says why a job failed."""
HYPERPARAMETER_SETTINGS: Final = "settings"
"""The hyperparameter of a SageMaker job that holds the settings, as ENV_SETTINGS does elsewhere ..."""
ENV_HYPERPARAMETER_SETTINGS: Final = "SM_HP_SETTINGS"
"""... and the variable in which SageMaker's toolkit hands it to every rank."""
ENV_METRICS_LOG_GROUP: Final = "STOCKFLOW_METRICS_LOG_GROUP"
"""CloudWatch log group for metrics where standard output does not reach CloudWatch by itself (EMR)."""
ENV_DEPLOYMENT: Final = "STOCKFLOW_DEPLOYMENT"
"""The deployment's name, which tells its metrics from those of another in the same account; unset on a laptop."""
ENV_FLEET_GROUP: Final = "STOCKFLOW_FLEET_GROUP"
"""Auto Scaling group of the ingest fleet; unset where Batch manages its own instances."""
ENV_JOB_QUEUES: Final = "STOCKFLOW_JOB_QUEUES"
"""Batch job queues of the deployment, by commas."""
ENV_CLUSTER_ID: Final = "STOCKFLOW_CLUSTER_ID"
"""The EMR cluster that is always on; unset where each execution has its own."""

# --- time ----------------------------------------------------------------------------------------

EXCHANGE_CALENDAR: Final = "XNYS"
EXCHANGE_TIMEZONE: Final = "America/New_York"
BAR_S: Final = 60
"""Length of a bar in seconds."""
SESSION_MINUTES: Final = 390
"""Bars of a full session; a half day has fewer."""

# --- schemas: (column, Arrow type) ---------------------------------------------------------------


class Column(NamedTuple):
    """A column of a stored table: its name, its Arrow type's name and what it means."""

    name: str
    arrow_type: str
    note: str


BARS: Final = (
    Column("ticker", "string", "symbol in Yahoo's spelling (BRK-B)"),
    Column("ts", "timestamp[ms, tz=UTC]", "start of the bar"),
    Column("open", "double", "USD"),
    Column("high", "double", "USD"),
    Column("low", "double", "USD"),
    Column("close", "double", "USD"),
    Column("volume", "int64", "shares"),
)
TICKS: Final = BARS
"""A tick object holds the bars that one poll of the market completed."""

PREDICTIONS_SCHEMA_VERSION: Final = 2
PREDICTIONS: Final = (
    Column("ticker", "string", "symbol in Yahoo's spelling"),
    Column("as_of", "timestamp[ms, tz=UTC]", "start of the window's last bar; it is known one minute later"),
    Column("horizon_min", "int32", "minutes from the last bar to the predicted one"),
    Column("last_price", "double", "close of the last bar, USD"),
    Column("predicted_return", "double", "log return over the horizon"),
    Column("predicted_price", "double", "USD"),
    Column("price_p10", "double", "USD; one price in ten is expected below it"),
    Column("price_p50", "double", "USD; as many prices are expected below it as above"),
    Column("price_p90", "double", "USD; one price in ten is expected above it"),
    Column("carried_minutes", "int32", "minutes of the window that belong to the session before"),
    Column("model_id", "string", "the model that made the prediction"),
    Column("produced_at", "timestamp[ms, tz=UTC]", "when the micro-batch was scored"),
)

# --- features ------------------------------------------------------------------------------------

FEATURE_RETURN: Final = "log_return"
FEATURE_VOLUME: Final = "log_volume"
FEATURE_SESSION_RETURN: Final = "session_return"
FEATURE_RANGE: Final = "log_range"
FEATURE_RELATIVE_VOLUME: Final = "relative_volume"
FEATURE_MARKET_RETURN: Final = "market_return"
FEATURE_SESSION_MINUTE: Final = "session_minute"
FEATURES: Final = (
    FEATURE_RETURN,
    FEATURE_VOLUME,
    FEATURE_SESSION_RETURN,
    FEATURE_RANGE,
    FEATURE_RELATIVE_VOLUME,
    FEATURE_MARKET_RETURN,
    FEATURE_SESSION_MINUTE,
)
"""Features of one minute that a dataset holds; a model takes some of them. See app.dataset.features."""
DEFAULT_FEATURES: Final = (FEATURE_RETURN, FEATURE_VOLUME)
"""What a model takes unless it is told otherwise: the 2021 system's close and volume."""
QUANTILES: Final = (0.1, 0.5, 0.9)
"""What is forecast beside the mean: p10 and p90 bound an interval of 80 %."""

# --- metrics -------------------------------------------------------------------------------------

METRICS_NAMESPACE: Final = "stockflow"
METRICS_DIMENSION: Final = "Deployment"
"""The dimension of all metrics: the value is that of ENV_DEPLOYMENT."""
METRIC_COVERAGE: Final = "Coverage"
METRIC_REQUESTS: Final = "YahooRequests"
METRIC_RATE_LIMITED: Final = "YahooRateLimited"
METRIC_STREAM_LAG: Final = "StreamLag"
METRIC_PREDICTIONS: Final = "Predictions"
METRIC_BATCH: Final = "MicroBatch"
METRIC_TICKS: Final = "Ticks"
METRIC_LATE: Final = "LateTicks"
METRIC_DUPLICATE: Final = "DuplicateTicks"
METRIC_REVISED: Final = "RevisedTicks"
METRIC_SKIPPED: Final = "SkippedTicks"
METRIC_MODEL_REFUSED: Final = "ModelRefused"
"""1 while the promoted model is not the one that the stream uses, because it cannot be."""
STREAM_METRICS: Final = (
    METRIC_STREAM_LAG,
    METRIC_PREDICTIONS,
    METRIC_BATCH,
    METRIC_TICKS,
    METRIC_LATE,
    METRIC_DUPLICATE,
    METRIC_REVISED,
    METRIC_SKIPPED,
    METRIC_MODEL_REFUSED,
)
TRAINING_METRICS: Final = ("loss", "validation_loss", "s_per_epoch", "sequences_per_s")
"""What rank 0 prints after each epoch as ``name=value`` words; SageMaker reads them from its log."""

# --- keys: market bucket -------------------------------------------------------------------------

BARS_PREFIX: Final = "bars/"
ANSWERS_PREFIX: Final = "answers/"
TICKS_PREFIX: Final = "ticks/"
RUNS_PREFIX: Final = "runs/"


def bars_day_prefix(day: date) -> str:
    """Prefix of all bars of one session."""
    return f"{BARS_PREFIX}dt={day.isoformat()}/"


_COMPACT: Final = "compact-"


def compact_part(digest: str) -> str:
    """The part into which others of a day were merged.

    Its content names it (app.ingest.parts): no key is ever given other bars, so who deletes a part that was merged
    deletes what was read.
    """
    return f"{_COMPACT}{digest}"


def is_compact(part: str) -> bool:
    """Whether it was merged from others: a shard's part ends in the shard's name."""
    return part.startswith(_COMPACT) and "-of-" not in part


def shard_part(run_id: str, shard: str, digest: str) -> str:
    """A part of a day that one shard of one run writes; its content names it too."""
    return f"{run_id}-{shard}-{digest}"


def bars_key(day: date, part: str) -> str:
    """Key of one part of a session's bars."""
    return f"{bars_day_prefix(day)}{part}.parquet"


def answers_day_prefix(day: date) -> str:
    """Prefix of all that was answered about one session."""
    return f"{ANSWERS_PREFIX}dt={day.isoformat()}/"


def answers_key(day: date, part: str) -> str:
    """What Yahoo answered about the bars of `bars_key`; written after them."""
    return f"{answers_day_prefix(day)}{part}.json"


def part_of(key: str) -> str:
    """The part that a key of bars or answers names."""
    return key.rpartition("/")[2].rpartition(".")[0]


def ticks_prefix(run_id: str) -> str:
    """Prefix under which the feed of one run writes; keys below it ascend with time."""
    return f"{TICKS_PREFIX}{run_id}/"


def ticks_key(run_id: str, day: date, epoch_ms: int, seq: int) -> str:
    """Key of one poll: `epoch_ms` is the start of the newest bar so far, `seq` the poll's number in the feed."""
    return f"{ticks_day_prefix(run_id, day)}{epoch_ms:013d}-{seq:06d}.parquet"


def ticks_day_prefix(run_id: str, day: date) -> str:
    """Prefix of the polls of one session."""
    return f"{ticks_prefix(run_id)}dt={day.isoformat()}/"


def ticks_place(key: str) -> tuple[int, int]:
    """The `epoch_ms` and the `seq` of a poll's key."""
    epoch_ms, _, seq = part_of(key).partition("-")
    return int(epoch_ms), int(seq)


def plan_key(run_id: str) -> str:
    """The ingest plan: universe, shards, days."""
    return f"{RUNS_PREFIX}{run_id}/plan.json"


def journal_prefix(run_id: str, shard: str) -> str:
    """What a shard that is not finished has fetched so far; keys below it ascend with time."""
    return f"{RUNS_PREFIX}{run_id}/journal/{shard}/"


def journal_key(run_id: str, shard: str, seq: int) -> str:
    """One entry of a shard's journal: the bars and reports of some tickers."""
    return f"{journal_prefix(run_id, shard)}{seq:06d}.parquet"


def manifest_key(run_id: str, shard: str) -> str:
    """What each ticker of one shard got, and why not."""
    return f"{RUNS_PREFIX}{run_id}/manifests/{shard}.json"


def coverage_key(run_id: str) -> str:
    """Coverage of the run by ticker and day, joined from its manifests."""
    return f"{RUNS_PREFIX}{run_id}/coverage.json"


def feed_end_key(run_id: str) -> str:
    """Written by the feed after its last ticks: their place in the source, and how many they were."""
    return f"{RUNS_PREFIX}{run_id}/feed.json"


def live_session_key(run_id: str) -> str:
    """Which session the feed of the running market brings: written when it first starts."""
    return f"{RUNS_PREFIX}{run_id}/session.json"


def stream_key(run_id: str) -> str:
    """Which checkpoint the run's stream goes on from: written when it first starts."""
    return f"{RUNS_PREFIX}{run_id}/stream.json"


def stream_health_key(run_id: str) -> str:
    """How the run's stream fares: written anew every few seconds while it runs, and at its end."""
    return f"{RUNS_PREFIX}{run_id}/stream-health.json"


def warm_state_key(run_id: str) -> str:
    """Window state from stored bars with which a stream starts (Arrow IPC)."""
    return f"{RUNS_PREFIX}{run_id}/warm.arrow"


def result_key(run_id: str, phase: str) -> str:
    """Result of one phase of one run, written when it has succeeded."""
    return f"{RUNS_PREFIX}{run_id}/results/{phase}.json"


# --- keys: model bucket --------------------------------------------------------------------------

DATASETS_PREFIX: Final = "datasets/"
MODELS_PREFIX: Final = "models/"
CURRENT_MODEL_KEY: Final = "models/current.json"
LATEST_DATASET_KEY: Final = "datasets/latest.json"
"""Names the run whose dataset was built last: what training alone trains on."""
TRAINING_JOBS_PREFIX: Final = "training-jobs/"
"""Where SageMaker leaves its own output of a job, and the nodes of a Batch job meet; the model goes to `models/`."""


def nodes_key(job_id: str, attempt: str, name: str) -> str:
    """What the nodes of one attempt at a Batch multi-node job tell each other: each by its index, ``end`` at last."""
    return f"{TRAINING_JOBS_PREFIX}{job_id}/{attempt}/nodes/{name}.json"


def dataset_key(run_id: str, split: str) -> str:
    """Dense feature rows of one split (``train``, ``validation``, ``test``)."""
    return f"{DATASETS_PREFIX}{run_id}/{split}.parquet"


def dataset_spec_key(run_id: str) -> str:
    """The dataset's spec: features, scaler, window, horizon, split, checks, fingerprint."""
    return f"{DATASETS_PREFIX}{run_id}/spec.json"


def model_prefix(model_id: str) -> str:
    """Prefix of everything that belongs to one model."""
    return f"{MODELS_PREFIX}{model_id}/"


def model_key(model_id: str, name: str) -> str:
    """Key of one of a model's files (MODEL_*)."""
    return f"{model_prefix(model_id)}{name}"


def candidate_key(run_id: str) -> str:
    """The model that a run's training left complete, not yet promoted: its id and the SHA-256 of its files."""
    return f"{MODELS_PREFIX}candidates/{run_id}.json"


def begun_key(run_id: str) -> str:
    """The model that a run began to train; there while it trains."""
    return f"{MODELS_PREFIX}begun/{run_id}.json"


MODEL_KERAS: Final = "model.keras"
MODEL_ONNX: Final = "model.onnx"
MODEL_SPEC: Final = "spec.json"
MODEL_METRICS: Final = "metrics.json"
MODEL_CARD: Final = "card.md"
"""The model described for people."""
MODEL_DECISION: Final = "decision.json"
"""Whether the model was promoted, and why; written by the gate."""
MODEL_FILES: Final = (MODEL_KERAS, MODEL_ONNX, MODEL_SPEC, MODEL_METRICS, MODEL_CARD)
"""A model is complete when all of these exist."""


def checkpoints_prefix(model_id: str) -> str:
    """Prefix of the states that training goes on from; keys below it ascend with the step."""
    return f"{model_prefix(model_id)}checkpoints/"


def checkpoint_key(model_id: str, step: int) -> str:
    """Training state after `step` steps of all ranks."""
    return f"{checkpoints_prefix(model_id)}step-{step:09d}.npz"


def checkpoint_step(key: str) -> int:
    """The step of a checkpoint's key."""
    return int(key.rpartition("step-")[2].removesuffix(".npz"))


# --- keys: predictions bucket --------------------------------------------------------------------

PREDICTIONS_PREFIX: Final = "predictions/"
LATEST_PREDICTIONS_KEY: Final = "latest.json"


def predictions_day_prefix(day: date) -> str:
    """Prefix of all predictions for bars of one day; those of later days follow it."""
    return f"{PREDICTIONS_PREFIX}dt={day.isoformat()}/"


def predictions_run_prefix(day: date, run_id: str) -> str:
    """Prefix of a run's predictions for bars of one day; keys of another run may begin with it too."""
    return f"{predictions_day_prefix(day)}{run_id}-"


def predictions_key(day: date, run_id: str, micro_batch: int) -> str:
    """Predictions for bars of one day, from this micro-batch on: each one writes the object anew until it is full."""
    return f"{predictions_run_prefix(day, run_id)}{micro_batch:08d}.parquet"


def predictions_micro_batch(key: str) -> int:
    """The first micro-batch of a predictions object."""
    return int(key.rpartition("-")[2].removesuffix(".parquet"))


def predictions_day(key: str) -> date:
    """The day of a predictions object."""
    return date.fromisoformat(key.removeprefix(f"{PREDICTIONS_PREFIX}dt=").partition("/")[0])


def predictions_run(key: str) -> str:
    """The run that wrote a predictions object."""
    return key.rpartition("/")[2].rpartition("-")[0]


def predictions_of_run(keys: Iterable[str], run_id: str) -> list[str]:
    """Those of the keys below `predictions_run_prefix` that are the run's own."""
    return [key for key in keys if predictions_run(key) == run_id]
