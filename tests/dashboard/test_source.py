"""Where the dashboard reads, and what its command says of that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner

from app import contract
from app.cli import cli
from app.errors import SettingsError, StorageError
from dashboard.machine import Machine
from dashboard.source import find_source, named_buckets
from embedded.aws.ports import PortInUseError
from embedded.daemon import MARKER, NotUp, _holding
from embedded.local import Local
from tests.dashboard.stepfunctions import MACHINE

NAMED = {
    contract.ENV_MARKET_BUCKET: "m",
    contract.ENV_MODEL_BUCKET: "n",
    contract.ENV_PREDICTIONS_BUCKET: "p",
    contract.ENV_AWS_ENDPOINT_URL: "http://127.0.0.1:9",
}
OUTPUTS = {"MarketBucket": "up-m", "ModelBucket": "up-n", "PredictionsBucket": "up-p", "StateMachine": "arn:of:it"}


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Path]:
    """A folder in which a stack is up, as far as other commands can tell."""
    local = Local("http://127.0.0.1:9", "simulated", ("A",), None, {"stacks": {"data": {"outputs": OUTPUTS}}}, 1)
    with _holding(tmp_path):
        (tmp_path / MARKER).write_text(json.dumps({**asdict(local), "pid": 1}))
        yield tmp_path


def test_the_environments_buckets_are_taken(tmp_path: Path) -> None:
    source = find_source(NAMED, tmp_path, tmp_path)
    assert [bucket.name for bucket in (source.market, source.models, source.predictions)] == ["m", "n", "p"]
    assert (source.name, source.machine) == ("http://127.0.0.1:9", None)


def test_a_state_machine_is_asked_where_one_is_named(tmp_path: Path) -> None:
    assert isinstance(find_source({**NAMED, "STATE_MACHINE": MACHINE}, tmp_path, tmp_path).machine, Machine)


def test_a_client_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no client of s3 can be made"):
        find_source({**NAMED, contract.ENV_AWS_ENDPOINT_URL: "nonsense"}, tmp_path, tmp_path)


def test_without_names_the_stack_that_is_up_is_taken(up: Path) -> None:
    source = find_source({}, up, up)
    assert [bucket.name for bucket in (source.market, source.models, source.predictions)] == ["up-m", "up-n", "up-p"]
    assert isinstance(source.machine, Machine)


def test_when_nothing_is_up_one_is_told_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(NotUp, match="type `stockflow up`"):
        find_source({}, tmp_path, tmp_path / "run")


def test_while_nothing_is_up_the_last_run_s_results_stand_in(up: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "summary.json").write_text('{"run_id": "try-1"}')
    source = find_source({}, tmp_path / "nothing", run)
    assert (source.name, source.machine, source.stands_in) == (f"{run} (try-1)", None, True)
    assert not find_source({}, up, run).stands_in


def test_some_names_are_not_enough() -> None:
    with pytest.raises(SettingsError, match=f"set {contract.ENV_MODEL_BUCKET}, {contract.ENV_PREDICTIONS_BUCKET} too"):
        named_buckets({contract.ENV_MARKET_BUCKET: "m"})
    assert named_buckets({}) == ()
    assert named_buckets(NAMED) == ("m", "n", "p")


def test_the_command_says_in_a_sentence_that_its_port_is_taken(taken_port: int) -> None:
    found = CliRunner().invoke(cli, ["dashboard", "--no-browser", "--port", str(taken_port)], env=NAMED)
    assert isinstance(found.exception, PortInUseError)
    assert str(found.exception) == f"port {taken_port} is in use: choose another with --port, or 0 for any free one"
