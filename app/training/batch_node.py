"""What every node of an AWS Batch multi-node parallel job starts: ``python -m app.training.batch_node``.

The nodes find each other in the model bucket, which only roles of the deployment can write: the main node tells the
public half of a key that it has just made; each of the others lets the holder of that key in by SSH and tells at which
address, by which host key, and how many ranks it takes. Then the main node starts `app.training.worker` over all of
them with mpirun, as on one machine, and tells the end. No private key leaves the node that made it, and each attempt
at a job has keys of its own.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app import contract
from app.errors import ObjectMissing, SettingsError, StockflowError, TrainingError
from app.processes import OUR_MESSAGE, Child, find_program
from app.progress import reporter
from app.settings import Settings, load, place_from_environ
from app.storage import Bucket
from app.training.launch import Hosts, mpirun_command, run_ranks, worker_command
from app.training.ssh import Door, client_command, make_key, open_door, own_address

_POLL_S = 5.0
_END = "end"


@dataclass(frozen=True)
class Node:
    """One node of a job. job: the id of the whole job; main: index of the main node; main_address: empty there."""

    job: str
    attempt: str
    index: int
    main: int
    count: int
    main_address: str

    @property
    def is_main(self) -> bool:
        """Whether it is the one that starts mpirun."""
        return self.index == self.main

    @property
    def others(self) -> list[int]:
        """Indices of all nodes but the main one."""
        return [index for index in range(self.count) if index != self.main]


def node_from_environ(environ: Mapping[str, str]) -> Node:
    """The node that Batch says this is; SettingsError when it does not say so."""
    names = [contract.ENV_JOB_ID, contract.ENV_NODES, contract.ENV_NODE, contract.ENV_MAIN_NODE]
    if missing := [name for name in names if not environ.get(name)]:
        raise SettingsError(f"{', '.join(missing)} not set: start this in a multi-node parallel job of AWS Batch")
    job, *numbers = (environ[name] for name in names)
    try:
        count, index, main = map(int, numbers)
    except ValueError as exc:
        raise SettingsError(f"{', '.join(names[1:])} are {', '.join(numbers)}, which are no numbers") from exc
    address = environ.get(contract.ENV_MAIN_NODE_ADDRESS, "")
    if index != main and not address:
        raise SettingsError(f"{contract.ENV_MAIN_NODE_ADDRESS} is not set, though node {index} is not the main one")
    return Node(job.partition("#")[0], environ.get(contract.ENV_JOB_ATTEMPT, "1"), index, main, count, address)


class Meeting:
    """Where the nodes of one attempt tell each other what they must know: objects of the model bucket."""

    def __init__(
        self,
        node: Node,
        models: Bucket,
        patience_s: float,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._node, self._models, self._patience_s = node, models, patience_s
        self._now, self._sleep = now, sleep

    def tell(self, name: str | int, what: Mapping[str, Any]) -> None:
        """Say it, once for all."""
        self._models.put_json(self._key(name), what)

    def heard(self, name: str | int) -> dict[str, Any] | None:
        """What was told under that name, None when nothing was yet."""
        try:
            told: dict[str, Any] = self._models.get_json(self._key(name))
        except ObjectMissing:
            return None
        return told

    def hear(self, index: int) -> dict[str, Any]:
        """Wait for what a node tells; TrainingError when that takes too long, or the job ends before."""
        give_up = self._now() + self._patience_s
        while (told := self.heard(index)) is None:
            if self.heard(_END):
                raise TrainingError(f"the job ended before node {index} was there: see the main node's log")
            if self._now() > give_up:
                raise TrainingError(
                    f"node {index} was not there within training.nodes_timeout_s={self._patience_s:g}: its log says"
                    " why, if it was started at all; raise that where images take longer to pull"
                )
            self._sleep(_POLL_S)
        return told

    def wait_for_end(self, limit_s: float, check: Callable[[], None]) -> int:
        """Wait for the job's end; returns its status. check: called again and again, may raise."""
        give_up = self._now() + limit_s
        while (told := self.heard(_END)) is None:
            check()
            if self._now() > give_up:
                raise TrainingError(f"the main node did not end the job within {limit_s:g} s: see its log")
            self._sleep(_POLL_S)
        return int(told["status"])

    def end(self, status: int) -> None:
        """The main node says how the job ended."""
        self.tell(_END, {"status": status})

    def _key(self, name: str | int) -> str:
        return contract.nodes_key(self._node.job, self._node.attempt, str(name))


Train = Callable[[int, Hosts | None], None]
"""Trains on so many ranks, over hosts where there are several; raises when that fails."""
OpenDoor = Callable[[Path, str, str, Mapping[str, str]], tuple[Door, Child]]


def run_main(node: Node, meeting: Meeting, slots: int, train: Train) -> None:
    """Start the ranks on all nodes and wait for them. slots: ranks of this node."""
    with _private_folder() as folder, _told_end(meeting):
        if node.count == 1:
            train(slots, None)
            return
        meeting.tell(node.index, {"client_key": make_key(folder / "client")})
        nodes = [meeting.hear(index) for index in node.others]
        doors = [Door(told["address"], told["port"], told["host_key"]) for told in nodes]
        lines = [f"{own_address(doors[0].address)} slots={slots}"]
        lines += [f"{told['address']} slots={told['slots']}" for told in nodes]
        print(f"nodes: {', '.join(lines)}", flush=True)
        (folder / "hosts").write_text("\n".join(lines) + "\n", encoding="utf-8")
        hosts = Hosts(folder / "hosts", client_command(folder, folder / "client", doors))
        train(slots + sum(told["slots"] for told in nodes), hosts)


def run_other(
    node: Node,
    meeting: Meeting,
    slots: int,
    limit_s: float,
    environ: Mapping[str, str],
    open_door: OpenDoor = open_door,
) -> None:
    """Let the main node start ranks here until the job has ended; TrainingError when it ended badly."""
    with _private_folder() as folder:
        client_key = meeting.hear(node.main)["client_key"]
        door, server = open_door(folder, own_address(node.main_address), client_key, environ)

        def check() -> None:
            if (status := server.poll()) is not None:
                raise TrainingError(f"sshd ended with status {status}: {server.last_error()}")

        try:
            meeting.tell(node.index, {**asdict(door), "slots": slots})
            status = meeting.wait_for_end(limit_s, check)
        finally:
            server.stop()
        if status:
            raise TrainingError(f"the job ended with status {status}: see the main node's log")


def count_slots(devices: Path = Path("/dev")) -> int:
    """Ranks that this node takes: one for each GPU that its container was given, one without any."""
    return len(list(devices.glob("nvidia[0-9]*"))) or 1


@contextmanager
def _told_end(meeting: Meeting) -> Iterator[None]:
    """Tell the others how what is within ended, however it did."""
    status = 1
    try:
        yield
        status = 0
    except StockflowError as exc:
        status = exc.exit_code
        raise
    finally:
        meeting.end(status)


@contextmanager
def _private_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="stockflow-node-") as name:
        yield Path(name)


def _trainer(settings: Settings, environ: Mapping[str, str]) -> Train:
    def train(ranks: int, hosts: Hosts | None) -> None:
        command = [*mpirun_command(find_program("mpirun", "openmpi-bin"), ranks, hosts), *worker_command()]
        run_ranks(command, settings, environ, reporter("train", "plain"))

    return train


def main() -> int:
    """Be one node of the job; the exit status is that of the error, if any."""
    # Batch asks a container to end by it; the first process of one would not hear it otherwise.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        node, settings = node_from_environ(os.environ), load(os.environ)
        models = Bucket(place_from_environ(os.environ).model_bucket)
        meeting = Meeting(node, models, settings.training.nodes_timeout_s)
        if node.is_main:
            run_main(node, meeting, count_slots(), _trainer(settings, os.environ))
        else:
            limit_s = settings.training.nodes_timeout_s + settings.training.timeout_s
            run_other(node, meeting, count_slots(), limit_s, os.environ)
    except StockflowError as exc:
        print(f"{OUR_MESSAGE}{exc}", file=sys.stderr, flush=True)
        return exc.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
