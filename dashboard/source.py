"""Where the dashboard reads: the buckets that the environment names, or those of the stack that is up here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from app import contract
from app.consumer.source import RUN_SUMMARY, RunFolder
from app.errors import SettingsError, StorageError
from app.storage import Bucket
from dashboard.machine import Machine
from embedded.aws.account import client
from embedded.daemon import NotUp, attach

ENV_STATE_MACHINE: Final = "STATE_MACHINE"
"""ARN of the state machine, as `stockflow up` exports it and docs/deploy.md sets it."""
_BUCKETS: Final = (contract.ENV_MARKET_BUCKET, contract.ENV_MODEL_BUCKET, contract.ENV_PREDICTIONS_BUCKET)
_CONFIG: Final = Config(
    retries={"mode": "standard", "total_max_attempts": 2}, connect_timeout=3, read_timeout=20, max_pool_connections=4
)
"""Who looks at a page is told soon that nothing answers; the next reading is the next try."""


@dataclass(frozen=True)
class Source:
    """What is read. machine: None where no state machine is known; name: as people call it.

    stands_in: whether it is read only as long as there is nothing better.
    """

    market: Bucket
    models: Bucket
    predictions: Bucket
    machine: Machine | None
    name: str
    stands_in: bool = False


def named_buckets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The three buckets that the environment names, none when it names none; SettingsError in between."""
    missing = [name for name in _BUCKETS if not environ.get(name)]
    if missing and len(missing) < len(_BUCKETS):
        raise SettingsError(f"set {', '.join(missing)} too, or none of the three to read what `stockflow up` runs")
    return () if missing else tuple(environ[name] for name in _BUCKETS)


def find_source(environ: Mapping[str, str], folder: Path, last_run: Path) -> Source:
    """What there is to read at this moment: the named buckets, the stack that is up, else what the last run left.

    folder: where `stockflow up` says what it runs; last_run: where `stockflow run` leaves its results. Raises
    SettingsError as `named_buckets`, StorageError when no client can be made, and NotUp when there is none of them.
    """
    if names := named_buckets(environ):
        endpoint = environ.get(contract.ENV_AWS_ENDPOINT_URL, "")
        machine = environ.get(ENV_STATE_MACHINE, "")
        return _source(names, partial(_client, endpoint=endpoint, machine=machine), machine, endpoint or "AWS")
    try:
        local = attach(folder)
    except NotUp:
        if (last_run / RUN_SUMMARY).is_file():
            results = RunFolder(last_run)
            return Source(results, results, results, None, f"{last_run} ({results.run_id})", stands_in=True)
        raise
    names = tuple(local.buckets()[role].name for role in ("market", "model", "predictions"))
    return _source(names, partial(client, endpoint=local.url, config=_CONFIG), local.machine, local.url)


def _source(names: tuple[str, ...], connect: Any, machine: str, name: str) -> Source:
    s3 = connect("s3")
    market, models, predictions = (Bucket(bucket, s3) for bucket in names)
    return Source(market, models, predictions, Machine(connect("stepfunctions"), machine) if machine else None, name)


def _client(service: str, *, endpoint: str, machine: str) -> Any:
    """A client of AWS, of the region in the state machine's ARN where one is known."""
    region = [*machine.split(":"), *[""] * 4][3]
    try:
        return boto3.client(service, endpoint_url=endpoint or None, region_name=region or None, config=_CONFIG)
    except (BotoCoreError, ValueError) as exc:  # ValueError: an endpoint that is no URL
        raise StorageError(f"no client of {service} can be made: {exc}: correct the AWS_* variables") from exc
