"""Nodes of a Batch multi-node job: what they make of Batch's variables, and how they find each other."""

from __future__ import annotations

import getpass
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import pytest

from app import contract
from app.errors import SettingsError, StorageError, TrainingError
from app.processes import Child
from app.training.batch_node import Meeting, Node, count_slots, node_from_environ, run_main, run_other
from app.training.launch import Hosts, mpirun_command
from app.training.ssh import Door, client_command, make_key, own_address, server_config
from tests.fakes import FakeTime, bucket

BATCH = {
    "AWS_BATCH_JOB_ID": "6f0e-12#1",
    "AWS_BATCH_JOB_ATTEMPT": "2",
    "AWS_BATCH_JOB_NUM_NODES": "3",
    "AWS_BATCH_JOB_NODE_INDEX": "1",
    "AWS_BATCH_JOB_MAIN_NODE_INDEX": "0",
    "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": "10.0.0.4",
}
MAIN = Node("job", "1", 0, 0, 2, "")
OTHER = Node("job", "1", 1, 0, 2, "127.0.0.1")
DOOR = Door("127.0.0.2", 4022, "ssh-ed25519 AAAAhost")
PATIENCE_S = 60.0


class Time(FakeTime):
    """Something may happen while it is slept."""

    def __init__(self) -> None:
        super().__init__()
        self.happens: list[Callable[[], None]] = []

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if self.happens:
            self.happens.pop(0)()


class Server:
    """Stands in for a running sshd."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.stopped = False

    def poll(self) -> int | None:
        return self.status

    def last_error(self) -> str:
        return "bad key"

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def meet(time: Time) -> Callable[[Node], Meeting]:
    models = bucket()
    return lambda node: Meeting(node, models, PATIENCE_S, time, time.sleep)


# --- Batch's variables ---------------------------------------------------------------------------


def test_a_node_knows_its_job_its_attempt_and_its_main_node() -> None:
    node = node_from_environ(BATCH)
    assert node == Node("6f0e-12", "2", 1, 0, 3, "10.0.0.4")
    assert (node.is_main, node.others) == (False, [1, 2])


def test_the_main_node_is_told_no_address() -> None:
    variables = {**BATCH, "AWS_BATCH_JOB_NODE_INDEX": "0", "AWS_BATCH_JOB_ID": "6f0e-12#0"}
    del variables["AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"]
    assert node_from_environ(variables) == Node("6f0e-12", "2", 0, 0, 3, "")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"AWS_BATCH_JOB_NUM_NODES": ""}, "AWS_BATCH_JOB_NUM_NODES not set: start this in a multi-node parallel job"),
        ({"AWS_BATCH_JOB_NODE_INDEX": "one"}, "3, one, 0, which are no numbers"),
        ({"AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": ""}, "node 1 is not the main one"),
    ],
)
def test_what_batch_did_not_say_is_named(changed: Mapping[str, str], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        node_from_environ({**BATCH, **changed})


def test_a_node_takes_a_rank_for_each_gpu_of_its_container_and_one_without(tmp_path: Path) -> None:
    assert count_slots(tmp_path) == 1
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert count_slots(tmp_path) == 2


# --- the main node -------------------------------------------------------------------------------


def test_the_main_node_spreads_ranks_over_all_nodes(meet: Callable[[Node], Meeting], time: Time) -> None:
    meeting, seen = meet(MAIN), []

    def come() -> None:
        assert str((meeting.heard(0) or {})["client_key"]).startswith("ssh-ed25519 ")
        meet(OTHER).tell(1, {"address": DOOR.address, "port": DOOR.port, "host_key": DOOR.host_key, "slots": 4})

    def train(ranks: int, hosts: Hosts | None) -> None:
        assert hosts is not None
        folder = hosts.file.parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        seen.append((ranks, hosts.file.read_text(), (folder / "known_hosts").read_text()))
        assert hosts.shell.endswith(f" -F {folder / 'ssh_config'}")

    time.happens = [lambda: None, come]
    run_main(MAIN, meeting, 1, train)
    hosts = f"{own_address(DOOR.address)} slots=1\n127.0.0.2 slots=4\n"
    assert seen == [(5, hosts, "[127.0.0.2]:4022 ssh-ed25519 AAAAhost\n")]
    assert meeting.heard("end") == {"status": 0}


def test_one_node_alone_needs_no_hosts(meet: Callable[[Node], Meeting]) -> None:
    seen: list[tuple[int, Hosts | None]] = []
    alone = Node("job", "1", 0, 0, 1, "")
    run_main(alone, meet(alone), 4, lambda ranks, hosts: seen.append((ranks, hosts)))
    assert seen == [(4, None)]


@pytest.mark.parametrize(
    ("error", "status"), [(TrainingError("rank 1: NaN"), 7), (StorageError("S3"), 3), (SystemExit(143), 1)]
)
def test_however_the_main_node_ends_the_others_are_told(
    meet: Callable[[Node], Meeting], error: BaseException, status: int
) -> None:
    alone = Node("job", "1", 0, 0, 1, "")

    def train(ranks: int, hosts: Hosts | None) -> None:
        raise error

    with pytest.raises(type(error)):
        run_main(alone, meet(alone), 1, train)
    assert meet(alone).heard("end") == {"status": status}


def test_a_node_that_does_not_come_ends_the_job(meet: Callable[[Node], Meeting], time: Time) -> None:
    with pytest.raises(TrainingError, match=r"node 1 was not there within training.nodes_timeout_s=60"):
        run_main(MAIN, meet(MAIN), 1, lambda ranks, hosts: pytest.fail("nothing to train on"))
    assert PATIENCE_S < time.now_s < PATIENCE_S + 10
    assert meet(MAIN).heard("end") == {"status": 7}


def test_another_attempt_knows_nothing_of_the_one_before(meet: Callable[[Node], Meeting]) -> None:
    meet(MAIN).end(1)
    assert meet(Node("job", "2", 0, 0, 2, "")).heard("end") is None


# --- the others ----------------------------------------------------------------------------------


def run(meeting: Meeting, server: Server, limit_s: float = 1000) -> None:
    def open_door(folder: Path, address: str, client_key: str, environ: Mapping[str, str]) -> tuple[Door, Child]:
        assert (address, client_key, environ) == ("127.0.0.1", "ssh-ed25519 AAAAclient", {"A": "1"})
        return DOOR, cast("Child", server)

    run_other(OTHER, meeting, 2, limit_s, {"A": "1"}, open_door)


def test_a_node_lets_the_main_one_in_until_the_end(meet: Callable[[Node], Meeting], time: Time) -> None:
    meeting, server = meet(OTHER), Server()
    time.happens = [lambda: meeting.tell(0, {"client_key": "ssh-ed25519 AAAAclient"}), lambda: None]
    time.happens.append(lambda: meeting.end(0))
    run(meeting, server)
    assert meeting.heard(1) == {"address": "127.0.0.2", "port": 4022, "host_key": "ssh-ed25519 AAAAhost", "slots": 2}
    assert server.stopped


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (lambda meeting, server: meeting.end(7), "the job ended with status 7: see the main node's log"),
        (lambda meeting, server: setattr(server, "status", 255), "sshd ended with status 255: bad key"),
        (lambda meeting, server: None, "the main node did not end the job within 1000 s"),
    ],
)
def test_a_node_ends_with_the_job_or_with_its_server(
    meet: Callable[[Node], Meeting], time: Time, end: Callable[[Meeting, Server], None], told: str
) -> None:
    meeting, server = meet(OTHER), Server()
    meeting.tell(0, {"client_key": "ssh-ed25519 AAAAclient"})
    time.happens = [lambda: end(meeting, server)]
    with pytest.raises(TrainingError, match=told):
        run(meeting, server)
    assert server.stopped


def test_a_node_that_comes_after_the_end_does_not_wait(meet: Callable[[Node], Meeting], time: Time) -> None:
    meet(MAIN).end(9)
    with pytest.raises(TrainingError, match="the job ended before node 0 was there"):
        run(meet(OTHER), Server())
    assert time.slept == []


# --- OpenSSH and mpirun --------------------------------------------------------------------------


def test_a_key_is_made_of_which_only_the_public_half_is_told(tmp_path: Path) -> None:
    public = make_key(tmp_path / "key")
    assert public.split()[0] == "ssh-ed25519"
    assert public not in (tmp_path / "key").read_text()
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_the_server_lets_in_one_user_with_one_key_and_hands_on_what_is_the_node_s_own() -> None:
    environ = {"AWS_REGION": "eu-west-1", "AWS_ODD": "a b", "PATH": "/opt/bin:/bin", contract.ENV_SETTINGS: "{}"}
    lines = server_config(Path("/private"), DOOR, environ).splitlines()
    assert "ListenAddress 127.0.0.2:4022" in lines
    assert "AuthorizedKeysFile /private/clients" in lines
    assert "AuthenticationMethods publickey" in lines
    assert f"AllowUsers {getpass.getuser()}" in lines
    assert [line for line in lines if line.startswith("SetEnv")] == ["SetEnv AWS_REGION=eu-west-1 PATH=/opt/bin:/bin"]


def test_the_client_knows_the_nodes_of_the_job_and_trusts_no_other(tmp_path: Path) -> None:
    client_command(tmp_path, tmp_path / "client", [DOOR, Door("10.0.0.9", 22022, "ssh-ed25519 AAAAother")])
    text = (tmp_path / "ssh_config").read_text()
    assert text.startswith("Host 127.0.0.2\n  Port 4022\nHost 10.0.0.9\n  Port 22022\nHost *\n")
    assert "  StrictHostKeyChecking yes\n" in text
    assert "  GlobalKnownHostsFile /dev/null\n" in text
    assert "[10.0.0.9]:22022 ssh-ed25519 AAAAother\n" in (tmp_path / "known_hosts").read_text()


def test_mpirun_is_the_same_over_hosts_as_on_one_machine_but_for_the_way_to_them(tmp_path: Path) -> None:
    alone = mpirun_command("mpirun", 4)
    spread = mpirun_command("mpirun", 4, Hosts(tmp_path / "hosts", "ssh -F config"))
    assert spread[: len(alone)] == alone
    more = " ".join(spread[len(alone) :])
    assert f"--hostfile {tmp_path / 'hosts'} " in more
    assert "--mca plm_rsh_agent ssh -F config " in more
    assert "btl_tcp_if_exclude 127.0.0.0/8,169.254.0.0/16" in more
