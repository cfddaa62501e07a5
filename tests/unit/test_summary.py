"""What summary.json says of an execution, also of one that did not get far."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from app.settings import Settings
from embedded.execution import Execution
from embedded.local import Local
from embedded.phases import PHASES, PhaseRun
from embedded.report import conclude
from embedded.run import Outcome
from embedded.summary import collect

START = datetime(2026, 3, 16, 20, 0, tzinfo=UTC)
DEPLOYED = {
    "stacks": {}, "not_created": {}, "seconds": 1.0, "adapted": ["a", "b"], "ignored": {"AWS::KMS::Key": ["Rotation"]}
}  # fmt: skip
JUDGED = {"role_calls": 7, "calls_without_grant": [], "unused_grants_unjustified": [{}, {}]}


def summary(status: str, *succeeded: str, iam: dict[str, Any], error: str | None = None) -> dict[str, Any]:
    phases = [PhaseRun(name, "succeeded" if name in succeeded else "not started") for name in PHASES]
    execution = Execution("arn", "r", status, START, None, ())
    local = Local("http://127.0.0.1:1", "simulated", (), None, DEPLOYED, 0)
    return collect(local, "r", Outcome(execution, phases, error, iam=iam), Settings(), 1)


def test_unused_grants_are_counted_when_all_phases_have_gone_their_way() -> None:
    whole = summary("SUCCEEDED", *PHASES, iam=JUDGED)
    assert whole["iam"] == {"calls": 7, "calls_without_grant": 0, "unused_grants_unjustified": 2}
    assert summary("FAILED", "ingest", iam=JUDGED)["iam"]["unused_grants_unjustified"] is None


def test_the_deployment_says_what_was_adapted_and_what_was_ignored() -> None:
    assert summary("SUCCEEDED", *PHASES, iam=JUDGED)["deployment"] == {
        "seconds": 1.0, "not_created": {}, "adapted": 2, "ignored": {"AWS::KMS::Key": ["Rotation"]}
    }  # fmt: skip


def test_a_run_whose_embedded_aws_is_gone_has_failed() -> None:
    found = summary("RUNNING", iam={}, error="it does not answer any more")
    assert (found["status"], found["error"]) == ("failed", "it does not answer any more")
    assert set(found["iam"].values()) == {None}
    said = StringIO()
    conclude(Console(file=said), found, Path("/nowhere"))
    assert "run r: failed" in said.getvalue()
