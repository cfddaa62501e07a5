"""What runs inside a Lambda's process: ``python -S -P function_runtime.py CALL ANSWER``.

CALL is a JSON file of event, handler and context; the answer is written to ANSWER as JSON: `result`, or `error` as the
Lambda runtime words it. The handler finds the standard library, its asset and the AWS SDK, as on AWS: without `site`
(-S) Python does not look where this environment has its packages.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any


class Context:
    """The second argument of a handler: https://docs.aws.amazon.com/lambda/latest/dg/python-context.html."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.function_name = given["function_name"]
        self.function_version = given["function_version"]
        self.invoked_function_arn = given["invoked_function_arn"]
        self.memory_limit_in_mb = given["memory_limit_in_mb"]
        self.aws_request_id = given["aws_request_id"]
        self.log_group_name = given["log_group_name"]
        self.log_stream_name = given["log_stream_name"]
        self._deadline = time.monotonic() + given["timeout_s"]

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function is ended."""
        return max(0, int((self._deadline - time.monotonic()) * 1000))


def main(call_file: str, answer_file: str) -> int:
    """Call the handler once."""
    call = json.loads(Path(call_file).read_text(encoding="utf-8"))
    sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
    try:
        module, _, name = call["handler"].rpartition(".")
        handler = getattr(importlib.import_module(module.replace("/", ".")), name)
        answer = {"result": handler(call["event"], Context(call["context"]))}
        text = json.dumps(answer)
    except Exception as exc:
        lines = traceback.format_exc().splitlines()
        print(f"[ERROR] {type(exc).__name__}: {exc}", *lines, sep="\n", flush=True)
        error = {"errorMessage": str(exc), "errorType": type(exc).__name__, "stackTrace": lines}
        text = json.dumps({"error": error})
    Path(answer_file).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
