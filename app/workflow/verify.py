"""After serving: whether a run's predictions are where a consumer looks for them."""

from __future__ import annotations

from datetime import date
from typing import Any, Final

from app import contract
from app.errors import ObjectMissing, ServingError
from app.storage import Bucket

MIN_SHARE: Final = 0.5
"""Windows for each tick. A stream that starts cold lacks the first hour of six and a half; one that gives less
than this has lost windows."""


def verify_predictions(run_id: str, market: Bucket, predictions: Bucket) -> dict[str, Any]:
    """Compare what the stream left with what the feed gave it; no table is read.

    Returns the numbers of predictions and of their objects, the day and the model. Raises ObjectMissing when
    the run was not served to its end, and ServingError when predictions are missing, too few or more than one
    for each tick and horizon, or `latest.json` is missing or in another version of the schema.
    """
    served = market.get_json(contract.result_key(run_id, "serve"))
    fed = market.get_json(contract.feed_end_key(run_id))
    day = str(served["day"])
    objects = _objects(predictions, run_id, date.fromisoformat(day))
    if not objects:
        raise ServingError(f"run {run_id} left no prediction of {day} in s3://{predictions.name}: serve a new run")
    horizons = len(served["horizons_min"])
    made, most = served["predictions"], fed["ticks"] * horizons
    if made < MIN_SHARE * most:
        raise ServingError(
            f"run {run_id} has {made:,} predictions of {fed['ticks']:,} ticks and {horizons} horizons, less than"
            f" {MIN_SHARE:.0%}: look for late or missing bars in the ticks, and serve a new run"
        )
    if made > most:
        raise ServingError(
            f"run {run_id} has {made:,} predictions of {fed['ticks']:,} ticks and {horizons} horizons, some of them"
            " twice: serve a new run"
        )
    _check_latest(predictions)
    return {"predictions": made, "objects": objects, "day": day, "model_id": served["model_id"]}


def _objects(predictions: Bucket, run_id: str, day: date) -> int:
    """How many of the day's objects are this run's."""
    found = predictions.keys(contract.predictions_run_prefix(day, run_id))
    return len(contract.predictions_of_run(found, run_id))


def _check_latest(predictions: Bucket) -> None:
    place = f"s3://{predictions.name}/{contract.LATEST_PREDICTIONS_KEY}"
    try:
        latest = predictions.get_json(contract.LATEST_PREDICTIONS_KEY)
    except ObjectMissing as exc:
        raise ServingError(f"{place} does not exist, although there are predictions: serve a new run") from exc
    version = latest.get("schema_version")
    if version != contract.PREDICTIONS_SCHEMA_VERSION:
        raise ServingError(
            f"{place} has schema_version {version}, not {contract.PREDICTIONS_SCHEMA_VERSION}:"
            " deploy one version of the code for all phases"
        )
