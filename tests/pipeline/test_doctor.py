"""`stockflow doctor` with the real programs: Horovod over two ranks of mpirun, and an account that boto3 asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app import contract
from app.doctor.check import good
from app.doctor.horovod import check_horovod
from app.doctor.machine import machine_checks
from embedded.aws.account import OPERATOR, REGION
from embedded.services import clean_environ, start_aws

LIMIT_S = 300.0


def doctor(environ: dict[str, str], *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit status and checks by name."""
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "doctor", "--json", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    return done.returncode, {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_two_ranks_add_up_their_numbers() -> None:
    assert check_horovod(os.environ, LIMIT_S) == good("an allreduce over 2 ranks is right")


def test_a_horovod_that_cannot_be_imported_is_told_by_its_rank(tmp_path: Path) -> None:
    broken = tmp_path / "horovod"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('libmpi.so.40 is gone')")
    finding = check_horovod({**os.environ, "PYTHONPATH": str(tmp_path)}, LIMIT_S)
    assert finding.status == "failure"
    assert finding.found.startswith("the ranks ended with status 1: rank ")
    assert finding.found.endswith(": ImportError: libmpi.so.40 is gone")
    assert "make setup" in finding.todo


def test_ranks_that_do_not_find_each_other_are_told(tmp_path: Path) -> None:
    (tmp_path / "mpirun").write_text('#!/bin/sh\nwhile [ "$1" != -m ]; do shift; done\nexec "$PYTHON" "$@"\n')
    (tmp_path / "mpirun").chmod(0o755)
    before = os.environ["PATH"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}{os.pathsep}{before}")
        finding = check_horovod({**os.environ, "PYTHON": sys.executable}, LIMIT_S)
    assert finding.found == "an allreduce over 2 ranks of 1 and 2 gave {'ranks': 1, 'sum': 1.0}"


def test_this_machine_is_fit_and_an_account_that_was_never_prepared_is_not() -> None:
    """What moto does not know of an account is a finding as well."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    aws = start_aws(0, clean_environ(environ))
    try:
        asked = {**environ, **OPERATOR.environ(), "AWS_REGION": REGION, contract.ENV_AWS_ENDPOINT_URL: aws.url}
        status, checks = doctor({**asked, "NO_PROXY": "127.0.0.1"}, "--aws")
    finally:
        aws.stop()
    here = {check.name for check in machine_checks({})}
    assert {name for name in here if checks[name]["status"] == "failure"} == set()
    assert checks["Horovod"]["status"] == "ok"
    assert checks["AWS region"]["status"] == "ok"
    assert (checks["AWS credentials"]["status"], checks["AWS credentials"]["todo"]) == (
        "warning",
        "type `unset AWS_ENDPOINT_URL`",
    )
    assert (checks["CDK bootstrap"]["status"], checks["CDK bootstrap"]["todo"]) == ("failure", "type `make bootstrap`")
    assert all(checks[f"{service} quota"]["todo"] for service in ("EC2", "SageMaker"))
    assert status == 12
