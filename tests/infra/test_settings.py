"""Settings of a deployment: what is allowed, and what is told of what is not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from moto.ec2.models.instance_types import INSTANCE_TYPES  # EC2's own list
from pydantic import ValidationError

from app.errors import SettingsError
from app.settings import Settings
from infra.context import load
from infra.root import ROOT
from infra.settings import Deployment, InferenceSettings, IngestionSettings, describe, training_instance_types


def test_nothing_has_to_be_set() -> None:
    assert load({}) == Deployment()


def test_the_project_s_own_context_is_right_and_suits_the_default_fleet() -> None:
    deployment = load(json.loads((ROOT / "cdk.json").read_text())["context"])
    assert deployment.model_copy(update={"settings": Settings()}) == Deployment()
    assert deployment.settings.ingest.shards >= deployment.ingestion.jobs_per_instance


@pytest.mark.parametrize(
    ("context", "path", "value"),
    [
        ({"training.instances": "2"}, "training.instances", 2),
        ({"training": '{"instances": 2}'}, "training.instances", 2),
        ({"training": {"instances": 2}, "training.instances": "3"}, "training.instances", 3),
        ({"training.instances": "3", "training": {"instances": 2, "processes": 2}}, "training.instances", 3),
        ({"training.instances": "3", "training": {"instances": 2, "processes": 2}}, "training.processes", 2),
        ({"settings": {"ingest": {"shards": 8}}, "settings.ingest.in_flight": "4"}, "settings.ingest.shards", 8),
        ({"settings.training": '{"epochs": 8}', "settings.training.batch": "64"}, "settings.training.epochs", 8),
        ({"retain": "false"}, "retain", False),
        ({"universe": "AAPL,MSFT"}, "universe", "AAPL,MSFT"),
        ({"observability.email": "a@b.org"}, "observability.email", "a@b.org"),
        (
            {"storage.consumer_principals": '["arn:aws:iam::1:root"]'},
            "storage.consumer_principals",
            ("arn:aws:iam::1:root",),
        ),
    ],
)
def test_a_flag_is_json_or_text_and_a_dotted_name_comes_over_its_group(
    context: Mapping[str, Any], path: str, value: Any
) -> None:
    found: Any = load(context)
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


def test_what_the_cdk_keeps_in_its_context_is_no_setting() -> None:
    own = {
        "@aws-cdk/core:newStyle": True,
        "aws:cdk:bundling-stacks": ["**"],
        "availability-zones:account=1:region=x": [],
    }
    assert load(own) == Deployment()


@pytest.mark.parametrize(
    ("context", "told"),
    [
        ({"retian": True}, "unknown setting retian: allowed are name, retain, always_on, universe, timeout_hours, "),
        ({"training.instance": 1}, "unknown setting training.instance: allowed are training.instance_type, training."),
        ({"settings.ingest.shard": 1}, "unknown setting settings.ingest.shard: allowed are settings.ingest.shards, "),
        ({"settings.training.ranks.x": 1}, "setting settings.training.ranks={'x': 1}: "),
        ({"training": "big"}, "setting training='big': "),
        ({"training": "big", "training.instances": 1}, "setting training.instances: training is given as 'big' too"),
        ({"training.instances": 5}, "setting training.instances=5: input should be less than or equal to 4"),
        ({"training.instances": "two"}, "setting training.instances='two': input should be a valid integer"),
        ({"always_on": "maybe"}, "setting always_on='maybe': input should be a valid boolean"),
        ({"name": "Stock_Flow"}, "setting name='Stock_Flow': string should match pattern '^[a-z]"),
        ({"ingestion.instance_type": "m6i.metal"}, "setting ingestion.instance_type='m6i.metal': string should match"),
        ({"ingestion.dataset_vcpus": 3}, "setting ingestion.dataset_vcpus=3: input should be 1, 2, 4 or 8"),
        ({"observability.log_days": 31}, "setting observability.log_days=31: input should be 1, 3, 5, 7, 14, 30, "),
        ({"observability.email": "desk"}, "setting observability.email='desk': string should match pattern"),
        ({"schedules.collect_at": "25:00"}, "setting schedules.collect_at='25:00': string should match pattern"),
        ({"settings.dataset.window_min": 1}, "setting settings.dataset.window_min=1: input should be greater than or"),
        ({"settings.serving": {"buckets": 1}}, "setting settings="),
    ],
)
def test_what_is_wrong_is_told_in_one_line_that_says_what_is_allowed(context: Mapping[str, Any], told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(context)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


# --- types of instances -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "family", "stand_in"),
    [
        ("g3s.xlarge", "g3s", "ml.g4dn.xlarge (1 GPU)"),
        ("ml.g3s.xlarge", "g3s", "ml.g4dn.xlarge (1 GPU)"),
        ("ml.g3.4xlarge", "g3", "ml.g4dn.xlarge (1 GPU)"),
        ("g3.8xlarge", "g3", "ml.g4dn.12xlarge (4 GPUs) with training.processes=2"),
        ("ml.g3.8xlarge", "g3", "ml.g4dn.12xlarge (4 GPUs) with training.processes=2"),
    ],
)
def test_g3_is_answered_with_why_and_what_instead(asked: str, family: str, stand_in: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"training.instance_type": asked})
    assert str(caught.value) == (
        f"setting training.instance_type='{asked}': {family} was never a SageMaker training type, and EC2 retired it"
        f" by October 2025: the nearest stand-in is {stand_in}"
    )
    assert stand_in.partition(" ")[0] in training_instance_types()


@pytest.mark.parametrize("asked", ["ml.t2.2xlarge", "t2.2xlarge", "g4dn.xlarge", "ml.g9.xlarge", ""])
def test_a_training_type_that_sagemaker_does_not_list_is_refused_with_some_that_it_does(asked: str) -> None:
    with pytest.raises(SettingsError, match=r"not among the training instance types .+ml\.g4dn\.xlarge, ml\.g4dn\."):
        load({"training.instance_type": asked})


def test_every_training_type_that_sagemaker_lists_is_taken() -> None:
    assert len(training_instance_types()) > 100
    for name in training_instance_types():
        assert load({"training.instance_type": name}).training.instance_type == name


@pytest.mark.parametrize("asked", ["t2.2xlarge", "t3.xlarge", "t3a.2xlarge"])
def test_emr_has_no_burstable_type(asked: str) -> None:
    with pytest.raises(SettingsError, match=r"no t type is offered by EMR: m5\.2xlarge is the nearest to t2\.2xlarge"):
        load({"inference.instance_type": asked})


def test_spot_needs_a_type_that_batch_manages() -> None:
    with pytest.raises(SettingsError, match=r"ingestion\.spot=true needs a type that Batch manages, not t2\.2xlarge"):
        load({"ingestion.spot": "true"})
    assert load({"ingestion.spot": "true", "ingestion.instance_type": "m6i.2xlarge"}).ingestion.managed


@pytest.mark.parametrize("asked", [{"shard_vcpus": 16}, {"shard_memory_mib": 40_000}])
def test_a_shard_that_fits_on_no_instance_is_refused(asked: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match=r"fits on t2\.2xlarge: lower"):
        load({"ingestion": asked})


def test_as_many_shards_share_an_instance_as_its_vcpus_and_its_memory_allow() -> None:
    def together(**asked: Any) -> int:
        return load({"ingestion": asked}).ingestion.jobs_per_instance

    assert together() == 8
    assert together(shard_vcpus=3) == 2
    assert together(shard_memory_mib=8192) == 3
    assert together(instance_type="c6i.2xlarge") == 4
    assert together(instance_type="r6i.large") == 2


def test_vcpus_and_memory_by_a_type_s_name_are_those_of_ec2() -> None:
    families = ("t2", "t3", "t3a", "m5", "m5a", "m6i", "m7i", "c5", "c6i", "c7i", "r5", "r6i", "r7a", "x2iedn")
    checked = 0
    for name, kind in INSTANCE_TYPES.items():
        family, _, size = name.partition(".")
        if family in families and re.fullmatch(r"\d*x?large", size):
            settings = InferenceSettings.model_construct(instance_type=name)
            assert settings.vcpus == kind["VCpuInfo"]["DefaultVCpus"], name
            assert settings.vcpus * settings.gib_per_vcpu * 1024 <= kind["MemoryInfo"]["SizeInMiB"], name
            checked += 1
    assert checked > 80


def test_arm_types_are_refused_since_images_and_packages_are_built_for_x86() -> None:
    for name, kind in INSTANCE_TYPES.items():
        if not re.search(r"\.\d*x?large$", name):
            continue
        if "arm64" in kind["ProcessorInfo"]["SupportedArchitectures"]:
            with pytest.raises(SettingsError, match="an ARM type, and what runs here is built for x86-64"):
                load({"ingestion.instance_type": name})
        else:
            assert load({"ingestion.instance_type": name}).ingestion.instance_type == name


# --- the list of settings -----------------------------------------------------------------------


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by their dotted names."""
    found: dict[str, Any] = {}
    for name, item in value.items():
        found |= flat(item, f"{prefix}{name}.") if isinstance(item, dict) else {f"{prefix}{name}": item}
    return found


def test_every_setting_is_listed_with_its_default_and_a_note() -> None:
    expected = flat(Deployment().model_dump(mode="json", exclude={"settings"}))
    listed = describe()
    assert {name: json.loads(default) for name, default, _ in listed} == expected
    assert all(note and not note.endswith(".") for _, _, note in listed)
    notes = {name: note for name, _, note in listed}
    assert notes["observability.log_days"] == "days for which logs are kept (1, 3, 5, 7, 14, 30, 60, 90, 180, 365)"


def test_settings_do_not_change_after_they_were_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load({}).training.instances = 2
    with pytest.raises(ValidationError, match="frozen"):
        IngestionSettings().spot = True
