"""What no setting tells and nobody has measured on AWS yet: each figure can be changed by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import SettingsError
from app.settings import explain

_Minutes = Annotated[float, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, lt=1)]


class Assumptions(BaseModel):
    """Figures behind an estimate. Minutes are those that AWS bills, beside the work itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    tickers: Annotated[int | None, Field(ge=1, description="null: as many as the universe of the settings")] = None
    session_min: Annotated[int, Field(ge=1, description="minutes of a trading day, and of the session served")] = 390
    spot_discount: Annotated[_Share, Field(description="what Spot is cheaper by; it changes by the hour")] = 0.6

    s_per_request: Annotated[
        float, Field(gt=0, description="time of one answer of Yahoo; 2021's project measured 0.6")
    ] = 0.6
    instance_overhead_min: Annotated[
        _Minutes, Field(description="fleet: boot, join, pull the image, merge the bars, and until it is ended")
    ] = 7.0
    fargate_overhead_min: Annotated[_Minutes, Field(description="Fargate job: pull the image, start, stop")] = 1.5
    dataset_rows_per_s: Annotated[float, Field(gt=0, description="dataset job; 20,000 measured on 2 CPU cores")] = 2e4
    training_overhead_min: Annotated[
        _Minutes, Field(description="SageMaker: pull the image, compile, evaluate, export, stop")
    ] = 6.0
    sequences_per_s: Annotated[
        float,
        Field(
            gt=0, description="training on one GPU, unmeasured; 6,000 to 14,000 on 2 CPU cores, 20,000 on 2021's M60"
        ),
    ] = 2e4
    rank_efficiency: Annotated[
        float, Field(gt=0, le=1, description="of more ranks than one; 2021's project had 0.5 to 0.7")
    ] = 0.6
    cluster_overhead_min: Annotated[_Minutes, Field(description="EMR: start, Spark's start, verify, end")] = 12.0
    polls_per_s: Annotated[
        float, Field(gt=0, description="listings when serving.trigger_s is 0; 18 measured at 30 ms an answer")
    ] = 20.0

    lambda_s: Annotated[float, Field(gt=0, description="seconds of one Lambda call")] = 3.0
    transitions: Annotated[int, Field(ge=1, description="states that an execution enters")] = 30
    log_mb: Annotated[float, Field(ge=0, description="MB of logs of an execution")] = 20.0
    flow_log_mb_per_hour: Annotated[float, Field(ge=0, description="VPC flow logs of one address, MB an hour")] = 2.0

    images_gb: Annotated[
        float, Field(ge=0, description="both images, compressed: training 7.0 (12 GB on disk), ingest 0.3")
    ] = 7.3
    assets_gb: Annotated[float, Field(ge=0, description="files of deployments in S3: 3 EMR environments")] = 0.4
    key_rotations: Annotated[
        int, Field(ge=0, le=2, description="of the key, one in seven years: the first and the second add its price")
    ] = 0
    sessions_kept: Annotated[int, Field(ge=0, description="days of bars and predictions in S3")] = 250
    runs_kept: Annotated[int, Field(ge=0, description="datasets and models in S3")] = 12
    logs_kept_gb: Annotated[float, Field(ge=0, description="GB of logs in CloudWatch")] = 1.0


def read_assumptions(flags: Sequence[str]) -> Assumptions:
    """The defaults with ``name=value`` flags over them; SettingsError says what is allowed."""
    asked: dict[str, str | None] = {}
    for flag in flags:
        name, equals, value = flag.partition("=")
        if not equals:
            raise SettingsError(f"--assume {flag!r} is not of the form name=value, e.g. sequences_per_s=30000")
        asked[name.strip()] = None if value == "null" else value
    try:
        return Assumptions.model_validate(asked)
    except ValidationError as exc:
        raise SettingsError(explain(exc, Assumptions).replace("setting ", "assumption ", 1)) from exc
