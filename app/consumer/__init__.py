"""Predictions for those who use them: as frames, from S3 or from the folder that `stockflow run` leaves.

    from app import consumer

    consumer.latest(["AAPL", "MSFT"])
    consumer.predictions("2026-03-20", "2026-03-24", columns=["ticker", "as_of", "predicted_price"])
    consumer.accuracy("2026-03-20", "2026-03-24", by=["ticker", "horizon_min"])

The bucket is the one that STOCKFLOW_PREDICTIONS_BUCKET names, unless one is given. Times are UTC. boto3, pyarrow and
numpy are all that is needed; pandas or polars where frames of theirs are asked for. See docs/consumers.md.
"""

from app.consumer.accuracy import accuracy, outcomes
from app.consumer.follow import follow
from app.consumer.read import latest, predictions, sessions

__all__ = ["accuracy", "follow", "latest", "outcomes", "predictions", "sessions"]
