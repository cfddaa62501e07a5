"""Faults on demand, as the SDKs of the tasks see them."""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from embedded.aws.account import Credentials, client
from tests.embedded.conftest import Serve

TASK = Credentials("ASIATASK", "secret", "token")
ONE_TRY = Config(retries={"total_max_attempts": 1})


@pytest.fixture(scope="module")
def url(serve: Serve) -> str:
    return serve()


def fail(url: str, service: str, status: int, seconds: float = 60) -> None:
    fault = json.dumps({"service": service, "status": status, "seconds": seconds}).encode()
    urlopen(f"{url}/_embedded/faults", fault).close()  # noqa: S310 - of loopback


@pytest.mark.parametrize(
    ("service", "method", "parameters", "status", "code"),
    [
        ("lambda", "invoke", {"FunctionName": "f"}, 500, "ServiceException"),
        ("s3", "list_buckets", {}, 500, "InternalError"),
        ("s3", "list_buckets", {}, 503, "ServiceUnavailable"),
        ("batch", "describe_jobs", {"jobs": ["1"]}, 500, "ServerException"),
        ("sagemaker", "list_training_jobs", {}, 500, "InternalFailure"),
        ("cloudwatch", "list_metrics", {}, 500, "InternalFailure"),
        ("ec2", "describe_instances", {}, 500, "InternalError"),
        ("sns", "list_topics", {}, 429, "ThrottlingException"),
    ],
)
def test_a_service_that_fails_says_so_in_its_own_form(
    url: str, service: str, method: str, parameters: dict[str, Any], status: int, code: str
) -> None:
    signed_as = {"cloudwatch": "monitoring"}.get(service, service)
    fail(url, signed_as, status)
    with pytest.raises(ClientError) as failed:
        getattr(client(service, url, TASK, ONE_TRY), method)(**parameters)
    fail(url, signed_as, status, seconds=0)
    answer = failed.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    assert answer["ResponseMetadata"]["RequestId"]


def test_the_operator_sees_no_faults(url: str) -> None:
    fail(url, "sqs", 500)
    assert "QueueUrls" not in client("sqs", url, config=ONE_TRY).list_queues()


def test_a_fault_is_an_error(url: str) -> None:
    with pytest.raises(HTTPError, match="400"):
        fail(url, "sqs", 200)


def test_a_proxy_of_the_environment_is_not_asked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    for config in (None, ONE_TRY):
        assert client("sts", url, config=config).get_caller_identity()["Account"]
