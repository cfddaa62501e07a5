"""A session through Kinesis on a real Spark: the forecasts are those of the same session through S3."""

from __future__ import annotations

import pandas as pd

from app import contract
from embedded.aws.account import client
from tests.pipeline.conftest import World
from tests.pipeline.streaming_job import predictions

STREAM = "market-ticks"


def test_a_session_through_kinesis_is_forecast_as_through_s3(served: World) -> None:
    world = served.copy_run("kinesis")
    kinesis = client("kinesis", world.environ[contract.ENV_AWS_ENDPOINT_URL])
    kinesis.create_stream(StreamName=STREAM, ShardCount=2)
    kinesis.put_record(StreamName=STREAM, PartitionKey="SIM001", Data=b"no tick")
    settings = ("serving.source=kinesis", f"serving.kinesis_stream={STREAM}", "serving.micro_batch_limit=1")
    flags = [word for setting in settings for word in ("--set", setting)]
    world.must("serve", "--speed", "100000", *flags)
    columns = [name for name in predictions(served) if name != "produced_at"]
    pd.testing.assert_frame_equal(predictions(world)[columns], predictions(served)[columns])
    counted = world.result("serve")["counted"]
    fed = world.market.get_json(contract.feed_end_key(world.run_id))
    assert len(fed["last_sequence_numbers"]) == 2
    assert (counted["ticks"], counted["skipped"], counted["late"]) == (fed["ticks"] + 1, 1, 0)
