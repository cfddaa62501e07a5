"""Fixtures of the unit tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app import contract
from app.tables import arrow_schema
from tests.fakes import FakeS3
from tests.yahoo_server import LocalYahoo, local_yahoo


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> FakeS3:
    """An empty S3 that every Bucket made without a client talks to; nothing is loaded from it yet."""
    from app.serving.scoring import load_scorer
    from app.serving.stream_bucket import stream_bucket
    from app.serving.warm import fetch_warm_state

    fake = FakeS3()
    load_scorer.cache_clear()
    stream_bucket.cache_clear()
    fetch_warm_state.cache_clear()
    monkeypatch.setattr(boto3, "client", lambda *args, **options: fake)
    return fake


@pytest.fixture
def yahoo() -> Iterator[LocalYahoo]:
    """A server on this machine that answers as Yahoo, asked by a yfinance that remembers nothing."""
    import yfinance
    from yfinance.cache import get_cookie_cache
    from yfinance.data import SingletonMeta, YfData

    from app.ingest.credentials import prepare_yfinance

    prepare_yfinance()
    yfinance.config.debug.hide_exceptions = False
    SingletonMeta._instances.pop(YfData, None)
    YfData.cache_get.cache_clear()
    get_cookie_cache().store("curlCffi", None)
    with local_yahoo() as server:
        yield server
    for thread in threading.enumerate():
        if thread.name == "yahoo-credentials":  # what it remembers is not for the next test
            thread.join(10)


@pytest.fixture(scope="session")
def real_bars(real_bars_path: Path) -> pa.Table:
    """Real bars of nine sessions from 2026-03-12 on, in the contract's schema."""
    schema = arrow_schema(contract.BARS)
    return pq.read_table(real_bars_path).select(schema.names).cast(schema)
