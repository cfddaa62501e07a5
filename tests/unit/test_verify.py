"""What verification asks of a served run's predictions."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from app import contract
from app.errors import ObjectMissing, ServingError
from app.storage import Bucket
from app.workflow.verify import verify_predictions
from tests.fakes import FakeS3, bucket

DAY = date(2026, 3, 24)


def served(**changes: Any) -> tuple[Bucket, Bucket]:
    """Market and predictions bucket of run r, served to its end: 390 ticks, 380 windows, two horizons, two objects."""
    market, predictions = bucket(FakeS3()), bucket(FakeS3())
    result = {"predictions": 760, "horizons_min": [1, 5], "day": DAY.isoformat(), "model_id": "m", **changes}
    market.put_json(contract.result_key("r", "serve"), result)
    market.put_json(contract.feed_end_key("r"), {"ticks": 390, "objects": 390})
    for run_id, micro_batch in [("r", 0), ("r", 7), ("r-2", 0), ("other", 0)]:
        predictions.put(contract.predictions_key(DAY, run_id, micro_batch), b"not read")
    predictions.put(contract.predictions_key(date(2026, 3, 23), "r", 0), b"of another day")
    predictions.put_json(contract.LATEST_PREDICTIONS_KEY, {"schema_version": 2, "predictions": []})
    return market, predictions


def test_a_served_run_is_told_by_its_own_objects_of_the_day() -> None:
    assert verify_predictions("r", *served()) == {
        "predictions": 760,
        "objects": 2,
        "day": "2026-03-24",
        "model_id": "m",
    }


def test_half_of_the_ticks_must_have_a_prediction_for_each_horizon() -> None:
    assert verify_predictions("r", *served(predictions=390))["predictions"] == 390
    assert verify_predictions("r", *served(predictions=195, horizons_min=[5]))["predictions"] == 195
    with pytest.raises(
        ServingError, match="run r has 389 predictions of 390 ticks and 2 horizons, less than 50%: look for late"
    ):
        verify_predictions("r", *served(predictions=389))


def test_no_tick_may_have_more_predictions_than_horizons() -> None:
    assert verify_predictions("r", *served(predictions=780))["predictions"] == 780
    with pytest.raises(ServingError, match="781 predictions of 390 ticks and 2 horizons, some of them twice: serve"):
        verify_predictions("r", *served(predictions=781))


def test_a_run_without_objects_is_told() -> None:
    market, predictions = served()
    for micro_batch in (0, 7):
        predictions.delete(contract.predictions_key(DAY, "r", micro_batch))
    with pytest.raises(ServingError, match="run r left no prediction of 2026-03-24 in s3://fake: serve a new run"):
        verify_predictions("r", market, predictions)


def test_the_latest_predictions_must_be_there_in_this_schema() -> None:
    market, predictions = served()
    predictions.put_json(contract.LATEST_PREDICTIONS_KEY, {"schema_version": 1, "predictions": []})
    with pytest.raises(ServingError, match=r"s3://fake/latest\.json has schema_version 1, not 2: deploy one version"):
        verify_predictions("r", market, predictions)
    predictions.delete(contract.LATEST_PREDICTIONS_KEY)
    with pytest.raises(ServingError, match=r"s3://fake/latest\.json does not exist, although there are predictions"):
        verify_predictions("r", market, predictions)


@pytest.mark.parametrize("key", [contract.result_key("r", "serve"), contract.feed_end_key("r")])
def test_a_run_that_was_not_served_to_its_end_is_told(key: str) -> None:
    market, predictions = served()
    market.delete(key)
    with pytest.raises(ObjectMissing, match=key):
        verify_predictions("r", market, predictions)
