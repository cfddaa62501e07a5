"""Trust policies of the tests' roles."""

from __future__ import annotations

import json


def trusting(*services: str) -> str:
    """The policy of a role that these services may act as, by the first part of their principals."""
    principals = [f"{service}.amazonaws.com" for service in services]
    statement = {"Effect": "Allow", "Principal": {"Service": principals}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
