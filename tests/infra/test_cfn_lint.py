"""The templates as cfn-lint sees them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.infra.synthesised import Synthesised

WRITTEN_BY_THE_CDK = {
    "W3005": "the CDK makes a function wait for its role by DependsOn, though it refers to it as well",
}


def test_cfn_lint_finds_nothing_but_what_the_cdk_writes_itself(any_app: Synthesised) -> None:
    templates = sorted(map(str, any_app.folder.glob("*.template.json")))
    program = Path(sys.prefix, "bin", "cfn-lint")
    command = [str(program), "--format", "json", "-t", *templates]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert [f"{match['Rule']['Id']} {match['Message']}" for match in found if not _expected(match)] == []


def _expected(match: dict[str, dict[str, str]]) -> bool:
    return match["Rule"]["Id"] in WRITTEN_BY_THE_CDK
