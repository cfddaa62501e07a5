"""A Batch multi-node job on one machine: two namespaces of networks, joined by a cable, are its nodes.

The nodes reach each other by SSH and nothing else; the embedded S3 they reach through a file.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from app import contract
from tests.pipeline.conftest import World
from tests.pipeline.toolkit import ALONE, ROOT

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]
_MACHINES = """
set -e
mount -t tmpfs none /run
ip link set lo up
ip link add left type veth peer name right
ip addr add 10.55.0.1/24 dev left
ip link set left up
unshare --net --uts sh -c "$OTHER" &
other=$!
while [ "$(readlink /proc/$other/ns/net)" = "$(readlink /proc/$$/ns/net)" ]; do sleep 0.1; done
ip link set right netns $other
"$PYTHON" -m tests.pipeline.relay "$PORT" "$TOP/s3" &
set +e
AWS_BATCH_JOB_NODE_INDEX=0 "$PYTHON" -m app.training.batch_node > "$TOP/0.log" 2>&1
echo $? > "$TOP/0.status"
wait $other
"""
_OTHER = """
hostname node-1
until ip addr add 10.55.0.2/24 dev right 2> /dev/null; do sleep 0.1; done
ip link set right up
ip link set lo up
"$PYTHON" -m tests.pipeline.relay "$PORT" "$TOP/s3" &
export AWS_BATCH_JOB_NODE_INDEX=1 AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS=10.55.0.1
"$PYTHON" -m app.training.batch_node > "$TOP/1.log" 2>&1
echo $? > "$TOP/1.status"
"""


@dataclass(frozen=True)
class Machines:
    """Two machines without a network but the one between them."""

    folder: Path
    port: str

    def run(self, environ: Mapping[str, str], job: str, wait_s: float = 250) -> tuple[list[int], str]:
        """Run a job on both; their exit statuses, and what they said."""
        top = self.folder / job
        top.mkdir()
        (top / "s3").symlink_to(self.folder / "s3")
        own = {"OTHER": _OTHER, "PYTHON": sys.executable, "TOP": str(top), "PORT": self.port}
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        batch = {contract.ENV_JOB_ID: job, contract.ENV_NODES: "2", contract.ENV_MAIN_NODE: "0"}
        with subprocess.Popen(
            [*ALONE, "--net", "--uts", "sh", "-c", _MACHINES], env={**keys, **environ, **own, **batch}, cwd=ROOT
        ) as machines:
            try:
                machines.wait(wait_s)
            finally:
                machines.kill()
        said = "\n".join((top / f"{node}.log").read_text(errors="replace") for node in (0, 1))
        return [int((top / f"{node}.status").read_text()) for node in (0, 1)], said


@pytest.fixture(scope="module")
def machines(dataset: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    if os.geteuid() != 0:
        pytest.skip("only root can make machines with a network between them")
    for program in ("unshare", "ip", "/usr/sbin/sshd"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} here")
    if (tried := subprocess.run([*ALONE, "--net", "true"], capture_output=True, text=True, check=False)).returncode:
        pytest.skip(f"a process may not have a network of its own here: {tried.stderr.strip()}")
    folder = tmp_path_factory.mktemp("machines")
    port = dataset.environ[contract.ENV_AWS_ENDPOINT_URL].rpartition(":")[2]
    command = [sys.executable, "-m", "tests.pipeline.relay", str(folder / "s3"), port]
    with subprocess.Popen(command, cwd=ROOT) as relay:
        yield Machines(folder, port)
        relay.send_signal(signal.SIGTERM)


def test_two_nodes_train_one_model(dataset: World, machines: Machines) -> None:
    run = dataset.copy_run("two-nodes")
    settings = {contract.ENV_SETTINGS: '{"training":{"epochs":1,"stall_timeout_s":120}}'}
    statuses, said = machines.run({**run.environ, **settings}, "two-nodes#0")
    assert statuses == [0, 0], said
    assert "nodes: 10.55.0.1 slots=1, 10.55.0.2 slots=1" in said
    model_id = run.models.get_json(contract.candidate_key("two-nodes"))["model_id"]
    metrics = run.models.get_json(contract.model_key(model_id, contract.MODEL_METRICS))
    assert (metrics["ranks"], metrics["rank_weight_max_diff"]) == (2, 0)


def test_all_nodes_fail_with_the_reason_of_the_rank_that_did(dataset: World, machines: Machines) -> None:
    run = dataset.copy_run("two-nodes-fail")
    settings = {contract.ENV_SETTINGS: '{"training":{"batch":8192}}'}
    statuses, said = machines.run({**run.environ, **settings}, "two-nodes-fail#0")
    assert statuses == [7, 7], said
    assert "stockflow: training ended with status 7: rank " in said
    assert "stockflow: the job ended with status 7: see the main node's log" in said
