"""Names that follow from an execution's ARN alone, so that whoever knows it can find what it started."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from app.rules import RUN_ID_PATTERN

CLUSTER_NAME: Final = "stockflow-{}"
"""An execution's EMR cluster; in the place of the braces stands its job prefix."""
_NAME_LENGTH = 16
_DIGEST_LENGTH = 8


def job_prefix(execution_arn: str) -> str:
    """First part of the names of an execution's jobs and cluster: of A-Z, a-z, 0-9 and inner hyphens, 25 at most."""
    digest = hashlib.sha256(execution_arn.encode()).hexdigest()[:_DIGEST_LENGTH]
    readable = re.sub(r"[^A-Za-z0-9-]", "-", execution_name(execution_arn)[:_NAME_LENGTH]).strip("-")
    return f"{readable}-{digest}" if readable else digest


def cluster_name(prefix: str) -> str:
    """Name of the EMR cluster of the execution with this job prefix."""
    return CLUSTER_NAME.format(prefix)


def default_run_id(execution_arn: str) -> str:
    """The execution's name where it can be a run id; EventBridge gives longer ones, which become a job prefix."""
    name = execution_name(execution_arn)
    return name if re.fullmatch(RUN_ID_PATTERN, name) else job_prefix(execution_arn)


def execution_name(execution_arn: str) -> str:
    """The last part of an execution's ARN."""
    return execution_arn.rpartition(":")[2]
