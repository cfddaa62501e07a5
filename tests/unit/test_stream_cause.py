"""What the user is told of a stream's failure: the one telling line of Spark's long message."""

from __future__ import annotations

import pytest

from app.serving.stream import _cause

IN_THE_SINK = """\
[FOREACH_BATCH_USER_FUNCTION_ERROR] An error occurred. Reason: An exception was raised by the Python Proxy. Traceback:
  File "sink.py", line 36, in __call__
    table = batch.toArrow()
pyspark.errors.exceptions.captured.PythonException:
  An exception was thrown from the Python worker. Please see the stack trace below.
Traceback (most recent call last):
  File "pyarrow/table.pxi", line 3181, in pyarrow.lib.RecordBatch.slice
TypeError: 'float' object cannot be interpreted as an integer

\tat py4j.Protocol.getReturnValue(Protocol.java:476)
"""
IN_A_WORKER = """\
org.apache.spark.api.python.PythonException: Traceback (most recent call last):
botocore.exceptions.EndpointConnectionError: Could not connect
During handling of the above exception, another exception occurred:
app.errors.StorageError: S3 at http://x does not answer (EndpointConnectionError): start it or check AWS_ENDPOINT_URL
ValueError: later
"""


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (IN_THE_SINK, "TypeError: 'float' object cannot be interpreted as an integer"),
        (
            IN_A_WORKER,
            "app.errors.StorageError: S3 at http://x does not answer (EndpointConnectionError):"
            " start it or check AWS_ENDPOINT_URL",
        ),
        ("[STREAM_FAILED] Query terminated\n\tat a.b(C.java)", "[STREAM_FAILED] Query terminated"),
    ],
)
def test_the_telling_line_is_found(message: str, told: str) -> None:
    assert _cause(RuntimeError(message)) == told


def test_a_stream_that_just_ended_was_stopped() -> None:
    assert _cause(RuntimeError()) == "it was stopped"
