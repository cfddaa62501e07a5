"""A statement less in a template, and the execution fails where it was needed, refused as by IAM."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import contract
from embedded.local import Local
from embedded.phase_logs import PhaseLogs
from embedded.reasons import explain
from embedded.services import clean_environ, start_aws, start_yahoo
from embedded.synthesis import assembly
from tests.pipeline.stack import Stack

TICKERS = ("SIM001", "SIM002", "SIM003", "SIM004")
"""As the other tests of this folder, so that the assembly is made once."""
SIMULATED = ("--sim", "tickers=4", "--sim", "sessions=5")


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    environ = clean_environ(os.environ)
    yahoo = start_yahoo("simulated", 0, SIMULATED, environ)
    yield {**environ, contract.ENV_YAHOO_URL: yahoo.url, contract.ENV_NOW: yahoo.ready["now"]}
    yahoo.stop()


def without(templates: Path, folder: Path, policy: str, action: str) -> Path:
    """A copy of an assembly whose policy, by the beginning of its logical id, does not allow the action."""
    shutil.copytree(templates, folder)
    (template_file,) = folder.glob("*-compute.template.json")
    template = json.loads(template_file.read_text())
    removed = 0
    for name, resource in template["Resources"].items():
        if resource["Type"] == "AWS::IAM::Policy" and name.startswith(policy):
            for statement in resource["Properties"]["PolicyDocument"]["Statement"]:
                removed += remove(statement, action)
    assert removed == 1
    template_file.write_text(json.dumps(template))
    return folder


def remove(statement: dict[str, Any], action: str) -> bool:
    """Whether the statement allowed it; another action takes its place, since a statement needs one."""
    actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
    if action not in actions:
        return False
    statement["Action"] = [one for one in actions if one != action] or ["sts:GetCallerIdentity"]
    return True


@pytest.mark.parametrize(
    ("policy", "action", "state", "error", "refused"),
    [
        ("WorkflowRole", "lambda:InvokeFunction", "ValidateInput", "Lambda.AccessDeniedException", "InvokeFunction"),
        ("IngestionIngestRole", "s3:PutObject", "IngestShards", "States.TaskFailed", "PutObject"),
    ],
)
def test_a_statement_less_fails_the_state_that_needs_it(
    environ: dict[str, str],
    tmp_path: Path,
    policy: str,
    action: str,
    state: str,
    error: str,
    refused: str,
) -> None:
    aws = start_aws(0, environ, assembly=without(assembly(TICKERS, environ), tmp_path / "assembly", policy, action))
    try:
        local = Local(aws.url, "simulated", TICKERS, environ[contract.ENV_NOW], aws.ready["deployed"], aws.pid)
        stack = Stack(local)
        execution = stack.wait(stack.start("ingest", universe=["SIM001", "SIM002"]))
        failed = execution.failed_state()
        assert failed is not None
        assert (execution.status, failed.name, execution.error) == ("FAILED", state, error)
        reason, status = explain(execution, PhaseLogs(local.connect))
        assert "not authorized" in reason or "AccessDenied" in reason
        assert status > 0
        calls = local.calls()["calls_without_grant"]
        assert {call["action"] for call in calls} == {action}
        assert refused in reason
    finally:
        aws.stop()
