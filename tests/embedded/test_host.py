"""The machine behind the fleets."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from threading import Event, Thread

import pytest
from moto import mock_aws

from embedded.aws.account import client
from embedded.aws.host import Host
from embedded.aws.iam.trust import NotTrusted
from tests.embedded.roles import trusting

WAITS_FOR_THE_OTHER = """
import pathlib, signal, sys, time
mine, other = map(pathlib.Path, sys.argv[1:])
def stop(*_):
    mine.with_suffix(".asked").touch()
    while not other.with_suffix(".asked").exists():
        time.sleep(0.02)
    mine.with_suffix(".done").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
mine.touch()
time.sleep(60)
"""


def until_there(*paths: Path) -> None:
    deadline = time.monotonic() + 30
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, paths
        time.sleep(0.02)


def test_all_tasks_are_asked_to_end_before_one_is_waited_for(tmp_path: Path) -> None:
    host = Host(endpoint="http://127.0.0.1:1", folder=tmp_path / "host", environ={})
    marks = [tmp_path / "left", tmp_path / "right"]
    over = Event()

    def run(mine: Path, other: Path) -> None:
        host.start([sys.executable, "-c", WAITS_FOR_THE_OTHER, str(mine), str(other)], os.environ)
        over.wait(30)  # a task ends with the thread that has started it

    threads = [Thread(target=run, args=pair) for pair in (marks, marks[::-1])]
    for thread in threads:
        thread.start()
    until_there(*marks)
    host.close()
    over.set()
    for thread in threads:
        thread.join()
    assert all(mark.with_suffix(".done").exists() for mark in marks)


def test_only_whom_a_role_trusts_gets_its_credentials(tmp_path: Path) -> None:
    with mock_aws():
        host = Host(endpoint="http://127.0.0.1:1", folder=tmp_path, environ={})
        iam = client("iam", "https://iam.amazonaws.com")
        role = iam.create_role(RoleName="r", AssumeRolePolicyDocument=trusting("lambda", "ec2"))["Role"]["Arn"]
        assert host.credentials(role, "s", "ec2.amazonaws.com").token
        for arn, principal in ((role, "states.amazonaws.com"), (f"{role}-missing", "ec2.amazonaws.com")):
            with pytest.raises(NotTrusted, match=f"Could not assume role {arn}.*'{principal}'"):
                host.credentials(arn, "s", principal)
