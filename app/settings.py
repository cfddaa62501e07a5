"""Every setting of the phases: typed, frozen, with its unit in its name and a note.

Settings are parsed once at the edge (`load`) and passed down. Sources, later ones win: the defaults
below, a settings file (app.settings_file), the JSON object in ``STOCKFLOW_SETTINGS``, ``--set group.name=value``
flags. An unknown name or a wrong value is a SettingsError that names what is allowed: a number is a JSON number,
a day is text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app import contract
from app.errors import SettingsError
from app.rules import RUN_ID_PATTERN, RUN_ID_RULE, broken_rule
from app.setting_words import allowed, names_in, nearest, schema_at

_SAYS_WHAT_IS_ALLOWED = ("literal_error", "string_pattern_mismatch")
"""Pydantic's errors whose message names all that may be."""


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)  # JSON holds neither


class IngestSettings(_Group):
    """Phase I: bars from Yahoo."""

    shards: Annotated[int, Field(ge=1, le=10_000, description="parts of the universe; one worker takes one")] = 1
    processes: Annotated[int, Field(ge=1, le=64, description="worker processes on this machine")] = 1
    in_flight: Annotated[int, Field(ge=1, le=1024, description="requests in flight in one worker")] = 64
    rate_per_s: Annotated[
        float, Field(ge=0, le=10_000, description="requests a second of all workers together; 0 is no limit")
    ] = 50.0
    days: Annotated[int, Field(ge=1, le=30, description="calendar days back, today included; Yahoo keeps 30")] = 30
    request_days: Annotated[int, Field(ge=1, le=7, description="calendar days in one request; Yahoo allows 7")] = 7
    timeout_s: Annotated[float, Field(gt=0, le=120, description="limit of one request")] = 10.0
    attempts: Annotated[
        int, Field(ge=2, le=20, description="tries of one request; one that is refused by 429 is none")
    ] = 5
    backoff_s: Annotated[float, Field(ge=0, le=60, description="base of the exponential back-off, full jitter")] = 0.5
    patience_s: Annotated[
        float, Field(gt=0, le=3600, description="a worker that Yahoo gives no answer for so long gives up")
    ] = 120.0
    journal_s: Annotated[
        float, Field(ge=0, le=600, description="how often a worker writes down what a retry would have to fetch again")
    ] = 10.0
    client: Annotated[
        Literal["direct", "yfinance"],
        Field(description="who sends requests and parses answers: stockflow, or yfinance's slower Ticker.history"),
    ] = "direct"
    refetch: Annotated[bool, Field(description="ask again for days that are stored and settled")] = False
    on_delisted: Annotated[
        Literal["fail", "skip"], Field(description="what a ticker that Yahoo does not know does to the run")
    ] = "fail"
    complete_share: Annotated[
        float, Field(gt=0, le=1, description="a session with this share of its minutes is complete: no trade, no bar")
    ] = 0.9
    min_coverage: Annotated[
        float, Field(ge=0, le=1, description="share of known tickers that must have bars, or the phase fails")
    ] = 1.0


class DatasetSettings(_Group):
    """Between the phases: bars -> dense feature rows, split by time."""

    window_min: Annotated[int, Field(ge=2, le=240, description="minutes the model looks back")] = 60
    horizons_min: Annotated[
        tuple[Annotated[int, Field(ge=1, le=60)], ...],
        Field(min_length=1, description="minutes the model looks ahead, ascending; one model for all"),
    ] = (5,)
    validation_days: Annotated[
        int, Field(ge=1, le=60, description="sessions for validation: on one alone the quantiles are calibrated badly")
    ] = 3
    test_days: Annotated[int, Field(ge=1, le=60, description="last sessions, never seen before the final metrics")] = 2
    max_filled_share: Annotated[
        float, Field(ge=0, lt=1, description="a window with a larger share of missing minutes is not used")
    ] = 0.2
    exclude_days: Annotated[tuple[date, ...], Field(description="sessions to leave out, YYYY-MM-DD")] = ()


class TrainingSettings(_Group):
    """Phase II: the LSTM, data-parallel over MPI ranks."""

    ranks: Annotated[int, Field(ge=1, le=32, description="MPI ranks: nodes x GPUs on AWS, processes here")] = 2
    epochs: Annotated[int, Field(ge=1, le=1000, description="passes over the training windows")] = 4
    batch: Annotated[int, Field(ge=1, le=8192, description="windows in one step of one rank")] = 256
    learning_rate: Annotated[float, Field(gt=0, le=1, description="of Adam for one rank; times ranks")] = 1e-3
    warmup_epochs: Annotated[
        float, Field(ge=0, le=100, description="the rate rises from the one-rank rate over so many epochs")
    ] = 1.0
    lstm_units: Annotated[int, Field(ge=1, le=1024, description="width of the LSTM")] = 50
    dense_units: Annotated[int, Field(ge=1, le=1024, description="width of the dense layer")] = 32
    dropout: Annotated[float, Field(ge=0, lt=1, description="share of LSTM outputs dropped while training")] = 0.2
    seed: Annotated[int, Field(ge=0, le=2_000_000_000, description="of weights, shuffles and dropout")] = 7
    features: Annotated[
        tuple[Literal[contract.FEATURES], ...],  # type: ignore[valid-type]
        Field(min_length=1, description="what the model sees of a minute, in this order"),
    ] = contract.DEFAULT_FEATURES
    resolution_min: Annotated[
        int, Field(ge=1, le=60, description="minutes averaged into one step of the LSTM; divides dataset.window_min")
    ] = 1
    precision: Annotated[
        Literal["float32", "mixed_float16", "mixed_bfloat16"], Field(description="of the network's arithmetic")
    ] = "float32"
    compression: Annotated[Literal["none", "fp16"], Field(description="of gradients on their way between ranks")] = (
        "none"
    )
    kernel: Annotated[
        Literal["auto", "native", "xla", "graph"],
        Field(
            description="native: the LSTM in C++ on a CPU; xla: one compiled step; graph: cuDNN's LSTM on a GPU; auto:"
            " native where it can be compiled, on a GPU the faster one of the other two, measured there"
        ),
    ] = "auto"
    checkpoint_steps: Annotated[
        int, Field(ge=0, le=10**9, description="steps between checkpoints; each epoch ends with one anyway")
    ] = 1000
    checkpoints_kept: Annotated[
        int, Field(ge=1, le=1000, description="newest checkpoints of a model that are kept")
    ] = 3
    resident_mib: Annotated[
        int, Field(ge=1, le=10**6, description="of training rows in a rank's memory; more is streamed from its disk")
    ] = 4096
    stall_timeout_s: Annotated[
        float, Field(ge=1, le=86400, description="a rank that does not get on for so long ends the job")
    ] = 300.0
    timeout_s: Annotated[float, Field(gt=0, description="limit of the whole training")] = 3600.0
    nodes_timeout_s: Annotated[
        float, Field(gt=0, le=86400, description="nodes of a Batch job wait so long for each other at the start")
    ] = 1800.0


class GateSettings(_Group):
    """Between training and serving: which model may take over."""

    min_skill: Annotated[
        float, Field(ge=-1, le=1, description="a model with less skill over persistence in validation is not promoted")
    ] = 0.0


class ServingSettings(_Group):
    """Phase III: ticks in, predictions out."""

    source: Annotated[
        Literal["s3", "kinesis"],
        Field(description="where ticks come from: objects in the market bucket, or records of a Kinesis stream"),
    ] = "s3"
    kinesis_stream: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9_.-]{0,128}$", description="the stream that serving.source=kinesis reads")
    ] = ""
    feed: Annotated[
        Literal["replay", "live", "socket"],
        Field(description="what the feed brings: the last stored session, today's, or what a TCP socket sends today"),
    ] = "replay"
    socket_address: Annotated[
        str,
        Field(pattern=r"^([^\s:]+:[0-9]{1,5})?$", description="host:port that serving.feed=socket takes lines from"),
    ] = ""
    speed: Annotated[
        float, Field(gt=0, le=1e6, description="replay speed: 1 is real time, 600 ten minutes a second")
    ] = 600.0
    partitions: Annotated[int, Field(ge=1, le=1024, description="parallel tasks of a micro-batch")] = 2
    buckets: Annotated[int, Field(ge=1, le=8192, description="groups of tickers that share one state")] = 2
    trigger_s: Annotated[float, Field(ge=0, le=60, description="time between micro-batches; 0 is back to back")] = 0.0
    poll_s: Annotated[float, Field(gt=0, le=60, description="how often the end of the feed is looked for")] = 0.5
    micro_batch_limit: Annotated[
        int, Field(ge=1, le=10_000, description="polls of the market in a micro-batch at most; of Kinesis 500 records")
    ] = 60
    watermark_min: Annotated[
        int, Field(ge=1, le=60, description="minutes into which a late or revised bar is still taken")
    ] = 5
    object_rows: Annotated[
        int, Field(ge=1, le=1_000_000, description="predictions from which on the next ones begin a new S3 object")
    ] = 20_000
    live_client: Annotated[
        Literal["poll", "websocket"],
        Field(description="what the live feed makes bars of: Yahoo's charts, or the prices of its websocket"),
    ] = "poll"
    poll_delay_s: Annotated[
        float, Field(ge=0, le=50, description="the live feed asks for a minute so long after its end")
    ] = 5.0
    poll_timeout_s: Annotated[
        float, Field(gt=0, le=600, description="what Yahoo answers later than this is left to the feed's next poll")
    ] = 45.0
    grace_s: Annotated[
        float, Field(ge=0, le=3600, description="the live feed asks for the last bars until so long after the close")
    ] = 300.0
    idle_timeout_s: Annotated[
        float, Field(gt=0, description="a stream that neither sees a tick nor the end of the feed this long fails")
    ] = 120.0


class Settings(_Group):
    """All settings of one run; stored beside what they produce."""

    ingest: IngestSettings = IngestSettings()
    dataset: DatasetSettings = DatasetSettings()
    training: TrainingSettings = TrainingSettings()
    gate: GateSettings = GateSettings()
    serving: ServingSettings = ServingSettings()

    @model_validator(mode="after")
    def _keeps_the_rules(self) -> Settings:
        if broken := broken_rule(self.model_dump()):
            raise ValueError(broken)
        return self


class Place(_Group):
    """Where a run reads and writes: taken from the environment, never from settings."""

    market_bucket: str
    model_bucket: str
    predictions_bucket: str
    run_id: Annotated[str, Field(pattern=RUN_ID_PATTERN)]
    dataset_run: Annotated[str, Field(pattern=RUN_ID_PATTERN, description="the run whose dataset is trained on")]


def load(environ: Mapping[str, str], flags: Sequence[str] = ()) -> Settings:
    """Settings from the environment and from ``group.name=value`` flags.

    A value is read as JSON where it is JSON and as text otherwise.
    Raises SettingsError for an unknown name, a wrong value or a malformed source.
    """
    return _merged(asked_in(environ), flags)


def asked_in(environ: Mapping[str, str]) -> dict[str, Any]:
    """The JSON object in ``STOCKFLOW_SETTINGS``, as it is; SettingsError when it is none."""
    text = environ.get(contract.ENV_SETTINGS) or "{}"
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError as exc:
        raise SettingsError(f"{contract.ENV_SETTINGS} is not JSON: {exc.msg} at character {exc.pos}") from exc
    if not isinstance(parsed, dict):
        raise SettingsError(f"{contract.ENV_SETTINGS} must be a JSON object of groups, not {type(parsed).__name__}")
    return cast("dict[str, Any]", parsed)


def layered(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Groups of settings with others put over them, name by name."""
    found = dict(below)
    for group, values in above.items():
        under = found.get(group)
        found[group] = {**under, **values} if isinstance(under, dict) and isinstance(values, dict) else values
    return found


def changed(settings: Settings, *flags: str) -> Settings:
    """The settings with ``group.name=value`` flags applied; SettingsError as `load`."""
    return _merged(settings.model_dump(mode="json"), flags)


def flags_of(settings: Settings) -> tuple[str, ...]:
    """Of the settings those that were set, as ``group.name=value`` flags."""
    asked = settings.model_dump(mode="json", exclude_unset=True)
    return tuple(
        f"{group}.{name}={json.dumps(value)}" for group, values in asked.items() for name, value in values.items()
    )


def describe() -> list[str]:
    """One line for each setting: name, default and note."""
    return [
        f"{group}.{name}={json.dumps(field.get_default(), default=str)}  {field.description}"
        for group, outer in Settings.model_fields.items()
        for name, field in type(outer.get_default()).model_fields.items()
    ]


def place_from_environ(environ: Mapping[str, str]) -> Place:
    """Buckets and runs from the environment; SettingsError names what is missing.

    Without a name of its own, the dataset's run is the run itself.
    """
    names = {
        "market_bucket": contract.ENV_MARKET_BUCKET,
        "model_bucket": contract.ENV_MODEL_BUCKET,
        "predictions_bucket": contract.ENV_PREDICTIONS_BUCKET,
        "run_id": contract.ENV_RUN_ID,
    }
    missing = [env for env in names.values() if not environ.get(env)]
    if missing:
        raise SettingsError(f"set {', '.join(missing)} (`stockflow run` sets them for the embedded AWS)")
    try:
        return Place(
            **{field: environ[env] for field, env in names.items()},
            dataset_run=environ.get(contract.ENV_DATASET_RUN) or environ[contract.ENV_RUN_ID],
        )
    except ValidationError as exc:
        broken = str(exc.errors(include_url=False)[0]["loc"][0])
        env = names.get(broken, contract.ENV_DATASET_RUN)
        raise SettingsError(f"{env}={environ[env]!r}: {RUN_ID_RULE}") from exc


def explain(exc: ValidationError, model: type[BaseModel]) -> str:
    """One line for the first error of a validation: the setting, its value and what is allowed."""
    error = exc.errors(include_url=False)[0]
    path = [str(part) for part in error["loc"]]
    name = ".".join(path) or model.__name__
    if error["type"] == "extra_forbidden":
        like = nearest(name, names_in(schema := model.model_json_schema(), schema))
        hint = f"; did you mean {like}?" if like else ""
        return f"unknown setting {name}: allowed are {', '.join(_names_at(path[:-1], model))}{hint}"
    message = str(error["msg"]).removeprefix("Value error, ")
    if not path:
        return message
    meaning = _meaning(schema_at(path, model.model_json_schema()), error["type"])
    return f"setting {name}={error['input']!r}: {message[0].lower()}{message[1:]}{meaning}"


def _meaning(schema: Mapping[str, Any], error: str) -> str:
    """What a setting is and, unless pydantic's message says so, what it may be; nothing for a group of settings."""
    if error == "value_error" or "properties" in schema:  # our own sentence says it all
        return ""
    what = [] if error in _SAYS_WHAT_IS_ALLOWED else [allowed(schema)]
    words = ": ".join([*filter(None, [schema.get("description")]), *what])
    such = f", such as {json.dumps(schema['default'])}" if schema.get("type") == "array" and schema["default"] else ""
    return f" ({words}{such})"


def _names_at(path: Sequence[str], model: type[BaseModel]) -> list[str]:
    for part in path:
        annotation = model.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    prefix = "".join(f"{part}." for part in path)
    return [f"{prefix}{field}" for field in model.model_fields]


def _merged(base: dict[str, Any], flags: Sequence[str]) -> Settings:
    for flag in flags:
        name, equals, value = flag.partition("=")
        group, dot, field = name.strip().partition(".")
        if not (equals and dot and group and field):
            raise SettingsError(f"--set {flag!r} is not of the form group.name=value, e.g. training.epochs=3")
        base.setdefault(group, {})
        if not isinstance(base[group], dict):
            raise SettingsError(f"{contract.ENV_SETTINGS}: group {group!r} must be a JSON object")
        base[group][field] = json_or_text(value)
    try:
        return Settings.model_validate_json(json.dumps(base), strict=True)  # as app.workflow.schema judges
    except ValidationError as exc:
        raise SettingsError(explain(exc, Settings)) from exc


def json_or_text(text: str) -> Any:
    """What a value of the command line means: JSON where it is JSON, else text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
