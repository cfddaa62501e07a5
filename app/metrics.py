"""CloudWatch metrics as log lines in the Embedded Metric Format; no call is made where a log reaches CloudWatch.

Lambdas, Batch and SageMaker write the line to standard output. From EMR, whose output CloudWatch does not see,
it is sent to the log group that the environment names. Format:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import json
import math
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import boto3
from botocore.config import Config

from app import contract

_UNITS: Final = {
    contract.METRIC_COVERAGE: "None",
    contract.METRIC_STREAM_LAG: "Seconds",
    contract.METRIC_BATCH: "Seconds",
}
"""CloudWatch's unit of each metric; one that is not named here is a Count."""
_CONFIG: Final = Config(connect_timeout=1, read_timeout=3, retries={"total_max_attempts": 2})


Metrics = Mapping[str, float | str]
"""By name. A text is no metric: it stands in the same line, to be searched for."""
Emit = Callable[[Metrics], None]
"""Publishes metrics with the machine's time; never ends the phase that calls it."""


def emitter(environ: Mapping[str, str]) -> Emit:
    """How this process publishes: to the log group that the environment names, else on standard output.

    All metrics have the dimension of the deployment that the environment names, if it does.
    """
    deployment = environ.get(contract.ENV_DEPLOYMENT)
    dimensions = {contract.METRICS_DIMENSION: deployment} if deployment else {}
    group = environ.get(contract.ENV_METRICS_LOG_GROUP)
    return LogGroupEmitter(group, dimensions) if group else partial(_print, dimensions)


def _print(dimensions: Mapping[str, str], metrics: Metrics) -> None:
    print(_line(metrics, dimensions, int(time.time() * 1000)), flush=True)


class LogGroupEmitter:
    """Sends the lines to a log stream of this process, made with the first; tells its first failure on stderr."""

    def __init__(self, group: str, dimensions: Mapping[str, str], client: Any = None) -> None:
        self._group, self._stream, self._client = group, f"metrics-{uuid.uuid4().hex}", client
        self._dimensions = dimensions
        self._open = self._told = False

    def __call__(self, metrics: Metrics) -> None:
        """Send the metrics."""
        now_ms = int(time.time() * 1000)
        try:
            self._send({"timestamp": now_ms, "message": _line(metrics, self._dimensions, now_ms)})
        except Exception as exc:  # whatever it is: a metric is not worth a prediction
            if not self._told:
                self._told = True
                print(f"metrics are not sent to log group {self._group}: {exc}", file=sys.stderr, flush=True)

    def _send(self, event: Mapping[str, Any]) -> None:
        self._client = self._client or boto3.client("logs", config=_CONFIG)
        if not self._open:
            self._client.create_log_stream(logGroupName=self._group, logStreamName=self._stream)
            self._open = True
        self._client.put_log_events(logGroupName=self._group, logStreamName=self._stream, logEvents=[event])


def _line(metrics: Metrics, dimensions: Mapping[str, str], now_ms: int) -> str:
    """One line of the format; values that are not finite are left out, as JSON knows none."""
    texts = {name: value for name, value in metrics.items() if isinstance(value, str)}
    finite = {name: value for name, value in metrics.items() if not isinstance(value, str) and math.isfinite(value)}
    directive = {
        "Namespace": contract.METRICS_NAMESPACE,
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": name, "Unit": _UNITS.get(name, "Count")} for name in finite],
    }
    about = {"Timestamp": now_ms, "CloudWatchMetrics": [directive]}
    return json.dumps({"_aws": about, **dimensions, **texts, **finite})
