"""Training under AWS's own sagemaker-training toolkit: what the embedded SageMaker otherwise imitates.

The toolkit's master sleeps 30 s after a success, and one test makes an environment: `make chaos` runs them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from app import contract
from embedded.aws.training.toolkit import OptMl, Parameters, input_data_config, resource_config, variables
from infra.states.train import TrainingJob, train_states
from tests.pipeline.conftest import World
from tests.pipeline.toolkit import ROOT, Toolkit, find_toolkit

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]
_SCRIPT = ROOT / "docker" / "train.py"
_TELL = """\
import json, os, sys
from pathlib import Path
if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
    told = {"environ": dict(os.environ), "argv": sys.argv[1:], "cwd": os.getcwd(), "program": sys.argv[0]}
    Path(os.environ["SM_OUTPUT_DIR"], "told").write_text(json.dumps(told))
    raise ValueError("that was all")
"""


@pytest.fixture(scope="module")
def toolkit() -> Toolkit:
    found = find_toolkit()
    if isinstance(found, str):
        pytest.skip(f"the training toolkit cannot run here: {found}")
    return found


def hyperparameters(settings: str) -> dict[str, str]:
    """Those that the state machine sends, for two ranks on a host."""
    job = TrainingJob("", "", "", "", {}, spot=False, encrypt_traffic=False, volume_gib=1, max_runtime_s=60)
    sent = train_states(job, gate="", promote="", then="")["TrainModel"]["Parameters"]["HyperParameters"]
    values = {"$.settings_json": settings, "States.Format('{}', $.training.processes)": "2"}
    return {name.removesuffix(".$"): values.get(value, value) for name, value in sent.items()}


def copy_dataset(world: World, toolkit: Toolkit, top: Path) -> None:
    """The dataset as a channel, as SageMaker lays it out."""
    folder = toolkit.place(top).data / "dataset"
    folder.mkdir(parents=True)
    for key in world.models.keys(f"{contract.DATASETS_PREFIX}{world.run_id}/"):
        (folder / key.rpartition("/")[2]).write_bytes(world.models.get(key))


def environ_of(world: World, run_id: str) -> Mapping[str, str]:
    """What the job's request and its role give to the container."""
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    return {**keys, **world.environ, contract.ENV_DATASET_RUN: world.run_id, contract.ENV_RUN_ID: run_id}


def test_two_ranks_train_and_publish(dataset: World, toolkit: Toolkit, tmp_path: Path) -> None:
    copy_dataset(dataset, toolkit, tmp_path)
    settings = hyperparameters('{"training":{"epochs":1}}')
    ended = toolkit.train(tmp_path, _SCRIPT, settings, environ_of(dataset, "toolkit"))
    assert ended.status == 0, ended.log
    assert ended.files == {"success": ""}
    model_id = dataset.models.get_json(contract.candidate_key("toolkit"))["model_id"]
    metrics = dataset.models.get_json(contract.model_key(model_id, contract.MODEL_METRICS))
    assert (metrics["ranks"], metrics["rank_weight_max_diff"], len(metrics["history"])) == (2, 0, 1)
    prefix = contract.model_prefix(model_id)
    assert {key.removeprefix(prefix) for key in dataset.models.keys(prefix)} >= set(contract.MODEL_FILES)
    assert "epoch=1 loss=" in ended.log


def test_the_reason_of_the_rank_that_failed_is_the_job_s(dataset: World, toolkit: Toolkit, tmp_path: Path) -> None:
    copy_dataset(dataset, toolkit, tmp_path)
    settings = hyperparameters('{"training":{"batch":8192}}')
    ended = toolkit.train(tmp_path, _SCRIPT, settings, environ_of(dataset, "toolkit-fails"))
    assert ended.status != 0, ended.log
    assert set(ended.files) == {"failure"}
    assert ended.files["failure"].startswith("rank ")
    assert ended.files["failure"].endswith("lower training.batch")
    assert not dataset.models.exists(contract.candidate_key("toolkit-fails"))


def test_a_rank_finds_what_the_embedded_sagemaker_gives_it_too(toolkit: Toolkit, tmp_path: Path) -> None:
    """And an error that nobody foresaw is written down by the toolkit itself."""
    script = tmp_path / "tell.py"
    script.write_text(_TELL)
    (toolkit.place(tmp_path).data / "dataset").mkdir(parents=True)
    sent = {**hyperparameters('{"training":{}}'), "learn": "0.5"}
    ended = toolkit.train(tmp_path, script, sent, os.environ)
    assert ended.status != 0
    assert "ExecuteUserScriptError" in ended.files["failure"]
    told = json.loads(ended.files["told"])
    parameters = Parameters.read(sent)
    assert told["argv"] == parameters.arguments()
    assert told["cwd"] == "/opt/ml/code"
    resources = resource_config("localhost", ["localhost"], "ml.c5.large")
    channel = {"ChannelName": "dataset", "DataSource": {"S3DataSource": {}}}
    inputs, cpus = input_data_config([channel], "File"), os.cpu_count() or 1
    expected = variables(parameters, OptMl(Path("/opt/ml")), resources, inputs, "tell.py", cpus)
    del expected["SM_TRAINING_ENV"]  # all the others again as one JSON text, in which the toolkit has some more
    assert {name: told["environ"].get(name) for name in expected} == expected
