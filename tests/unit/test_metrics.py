"""Metrics are lines of CloudWatch's Embedded Metric Format, and never end what they measure."""

from __future__ import annotations

import json
import time
from typing import Any

import boto3
import pytest

from app import contract
from app.metrics import LogGroupEmitter, emitter
from tests.fakes import client_error


class FakeLogs:
    """boto3's CloudWatch Logs client, in memory."""

    def __init__(self) -> None:
        self.streams: list[tuple[str, str]] = []
        self.events: list[tuple[str, str, int, Any]] = []
        self.error: Exception | None = None

    def create_log_stream(self, **call: str) -> None:
        """Keep its name."""
        self.streams.append((call["logGroupName"], call["logStreamName"]))

    def put_log_events(self, **call: Any) -> None:
        """Keep the event, or fail as told."""
        if self.error is not None:
            raise self.error
        assert (call["logGroupName"], call["logStreamName"]) in self.streams
        for event in call["logEvents"]:
            self.events.append((*self.streams[-1], event["timestamp"], json.loads(event["message"])))


def test_a_line_declares_its_metrics_with_units_and_the_deployment(capsys: pytest.CaptureFixture[str]) -> None:
    emitter({contract.ENV_DEPLOYMENT: "prod"})({contract.METRIC_STREAM_LAG: 2.5, contract.METRIC_PREDICTIONS: 30})
    emitter({})({contract.METRIC_COVERAGE: 0.97})
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    stamp = first["_aws"].pop("Timestamp")
    assert abs(stamp - time.time() * 1000) < 60_000
    assert isinstance(stamp, int)
    assert first == {
        "_aws": {
            "CloudWatchMetrics": [
                {
                    "Namespace": "stockflow",
                    "Dimensions": [["Deployment"]],
                    "Metrics": [{"Name": "StreamLag", "Unit": "Seconds"}, {"Name": "Predictions", "Unit": "Count"}],
                }
            ]
        },
        "Deployment": "prod",
        "StreamLag": 2.5,
        "Predictions": 30,
    }
    assert second["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [[]]
    assert second["_aws"]["CloudWatchMetrics"][0]["Metrics"] == [{"Name": "Coverage", "Unit": "None"}]


def test_without_a_log_group_metrics_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    for environ in ({}, {contract.ENV_METRICS_LOG_GROUP: ""}, {contract.ENV_DEPLOYMENT: ""}):
        emitter(environ)({contract.METRIC_PREDICTIONS: 1})
        line = json.loads(capsys.readouterr().out)
        assert line.keys() == {"_aws", contract.METRIC_PREDICTIONS}


def test_with_a_log_group_they_go_to_one_stream_of_this_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = FakeLogs()
    monkeypatch.setattr(boto3, "client", lambda name, **options: {"logs": logs}[name])
    send = emitter({contract.ENV_METRICS_LOG_GROUP: "/stockflow/metrics", contract.ENV_DEPLOYMENT: "prod"})
    assert logs.streams == []  # made with the first metric
    send({contract.METRIC_PREDICTIONS: 30})
    send({contract.METRIC_PREDICTIONS: 31})
    assert len(logs.streams) == 1
    assert [message["Predictions"] for *_, message in logs.events] == [30, 31]
    for group, stream, stamp, message in logs.events:
        assert group == "/stockflow/metrics"
        assert message["Deployment"] == "prod"
        assert not set(stream) & set(":*")
        assert stamp == message["_aws"]["Timestamp"]
    assert capsys.readouterr() == ("", "")


def test_a_failure_to_send_is_told_once_and_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    logs = FakeLogs()
    send = LogGroupEmitter("g", {}, logs)
    logs.error = client_error("AccessDeniedException", "PutLogEvents")
    send({contract.METRIC_PREDICTIONS: 1})
    send({contract.METRIC_PREDICTIONS: 2})
    said = capsys.readouterr().err
    assert said.startswith("metrics are not sent to log group g: ")
    assert "AccessDeniedException" in said
    assert said.count("\n") == 1
    logs.error = None
    send({contract.METRIC_PREDICTIONS: 3})
    assert [message["Predictions"] for *_, message in logs.events] == [3]


def test_values_that_are_not_finite_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    emitter({})({contract.METRIC_STREAM_LAG: float("nan"), contract.METRIC_PREDICTIONS: 1})
    line = json.loads(capsys.readouterr().out)
    assert contract.METRIC_STREAM_LAG not in line
    assert line["_aws"]["CloudWatchMetrics"][0]["Metrics"] == [{"Name": "Predictions", "Unit": "Count"}]


def test_a_text_stands_in_the_line_and_is_no_metric(capsys: pytest.CaptureFixture[str]) -> None:
    emitter({})({"model_id": "m-1", contract.METRIC_PREDICTIONS: 1})
    line = json.loads(capsys.readouterr().out)
    assert line["model_id"] == "m-1"
    assert [one["Name"] for one in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]] == [contract.METRIC_PREDICTIONS]
