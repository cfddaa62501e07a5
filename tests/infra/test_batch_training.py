"""Training jobs on several nodes of Batch: none by default, and what they are made of."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from botocore.session import get_session
from botocore.validate import ParamValidator

from app import contract
from app.errors import SettingsError
from infra.context import load
from infra.cost.resources import FREE, PRICED
from infra.root import ROOT
from tests.infra import test_cfn_lint, test_compute, test_permissions, test_synth
from tests.infra.permissions import allowed, who_may
from tests.infra.synthesised import Synthesised
from tests.infra.templates import resources, text

NODES = "TrainingNodesRole"
TRAINING = "TrainingRole"


@pytest.fixture(scope="module")
def batch_app(tmp_path_factory: pytest.TempPathFactory) -> Synthesised:
    return Synthesised({"batch_training.nodes": 4}, tmp_path_factory.mktemp("batch"))


def of_nodes(app: Synthesised, kind: str) -> dict[str, Any]:
    """The properties of the one resource of a type that is there for training on Batch."""
    ((_, found),) = (item for item in resources(app.compute, kind).items() if item[0].startswith("TrainingNodes"))
    assert isinstance(found, dict)
    return found


def test_nothing_of_it_is_made_unless_asked_for(any_app: Synthesised) -> None:
    assert not [name for name in any_app.compute["Resources"] if "TrainingNodes" in name]
    assert "TrainingQueue" not in any_app.compute["Outputs"]


@pytest.mark.parametrize(
    "rule",
    [
        test_cfn_lint.test_cfn_lint_finds_nothing_but_what_the_cdk_writes_itself,
        test_compute.test_every_disk_is_encrypted,
        test_compute.test_instances_give_their_credentials_to_imdsv2_and_to_no_container,
        test_compute.test_no_policy_of_a_resource_lets_everybody_in,
        test_compute.test_nothing_is_an_entrance_and_nothing_costs_by_the_hour_while_idle,
        test_permissions.test_a_star_in_a_resource_stands_for_names_that_are_made_while_the_system_runs,
        test_permissions.test_every_action_is_allowed_on_resources_of_a_kind_that_it_takes,
        test_permissions.test_every_action_is_named_in_full_and_exists,
        test_permissions.test_only_actions_that_know_no_resources_are_allowed_on_all,
        test_permissions.test_roles_are_assumed_by_services_and_the_consumers_account_only,
        test_permissions.test_there_are_no_users_keys_or_groups,
        test_synth.test_no_finding_of_the_aws_solutions_rules_is_open_and_every_exception_is_needed,
    ],
)
def test_what_holds_for_every_deployment_holds_with_it(
    batch_app: Synthesised, rule: Callable[[Synthesised], None]
) -> None:
    rule(batch_app)


def test_all_that_it_adds_is_priced_or_free(batch_app: Synthesised) -> None:
    kinds = {resource["Type"] for resource in batch_app.compute["Resources"].values()}
    assert not kinds - PRICED.keys() - FREE.keys()


def test_nodes_reach_each_other_and_https_and_nothing_else_reaches_them(batch_app: Synthesised) -> None:
    groups = resources(batch_app.compute, "AWS::EC2::SecurityGroup")
    assert not [group for group in groups.values() if "SecurityGroupIngress" in group]
    (name,) = (name for name in groups if name.startswith("TrainingNodes"))
    itself = f"<{name}.GroupId>"
    (inward,) = resources(batch_app.compute, "AWS::EC2::SecurityGroupIngress").values()
    assert (text(inward["GroupId"]), text(inward["SourceSecurityGroupId"])) == (itself, itself)
    (outward,) = resources(batch_app.compute, "AWS::EC2::SecurityGroupEgress").values()
    assert (text(outward["GroupId"]), text(outward["DestinationSecurityGroupId"])) == (itself, itself)
    asked = of_nodes(batch_app, test_compute.ENVIRONMENT)["ComputeResources"]
    assert [text(group)[:12] for group in asked["SecurityGroupIds"]] == ["<NetworkJobs", itself[:12]]


def test_no_instance_runs_without_a_job_and_none_is_on_spot_which_batch_has_not_for_such_jobs(
    batch_app: Synthesised,
) -> None:
    environment = of_nodes(batch_app, test_compute.ENVIRONMENT)
    asked = environment["ComputeResources"]
    assert (environment["Type"].upper(), asked["Type"]) == ("MANAGED", "EC2")
    assert (asked["MinvCpus"], asked["MaxvCpus"], asked["InstanceTypes"]) == (0, 16, ["g4dn.xlarge"])
    assert asked["Ec2Configuration"] == [{"ImageType": "ECS_AL2023_NVIDIA"}]


def test_every_node_runs_the_training_image_with_all_of_its_instance(batch_app: Synthesised) -> None:
    job = of_nodes(batch_app, test_compute.JOB)
    nodes = job["NodeProperties"]
    assert (job["Type"], nodes["MainNode"], nodes["NumNodes"]) == ("multinode", 0, 4)
    (group,) = nodes["NodeRangeProperties"]
    assert group["TargetNodes"] == "0:"
    container = group["Container"]
    assert container["Command"] == ["python", "-m", "app.training.batch_node"]
    assert (ROOT / "app" / "training" / "batch_node.py").is_file()
    needs = {each["Type"]: int(each["Value"]) for each in container["ResourceRequirements"]}
    assert needs == {"VCPU": 4, "MEMORY": 14745, "GPU": 1}  # of 4 and 16,384
    named = {variable["Name"] for variable in container["Environment"]}
    assert {contract.ENV_MARKET_BUCKET, contract.ENV_MODEL_BUCKET, "AWS_DEFAULT_REGION"} <= named
    (image,) = {
        state["Parameters"]["AlgorithmSpecification"]["TrainingImage"]
        for name, state in batch_app.states("Task").items()
        if name == "TrainModel"
    }
    assert batch_app.compute_stack.value(container["Image"]) == image


def test_a_node_may_do_what_a_sagemaker_job_may_and_read_what_other_nodes_say(batch_app: Synthesised) -> None:
    in_s3 = {
        role: {
            (action, resource)
            for permission, action, resource in allowed(batch_app.permissions)
            if permission.role == role and action.startswith("s3:")
        }
        for role in (NODES, TRAINING)
    }
    told = f"arn:aws:s3:::{batch_app.bucket('Model')}/{contract.nodes_key('*', '*', '*')}"
    assert in_s3[NODES] - in_s3[TRAINING] == {("s3:GetObject", told)}
    assert in_s3[TRAINING] < in_s3[NODES]
    assert {permission.role for permission in batch_app.permissions if NODES in permission.role} == {NODES}
    key = f"arn:aws:s3:::{batch_app.bucket('Model')}/{contract.nodes_key('job', '1', '0')}"
    assert who_may(batch_app.permissions, "s3:PutObject", key) == {NODES, TRAINING}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("instance_type", "g3.8xlarge", "g3 was retired by October 2025: the nearest stand-in is g4dn"),
        ("instance_type", "t3.xlarge", "no t type is managed by Batch"),
        ("instance_type", "g5g.xlarge", "an ARM type"),
        ("nodes", 5, "less than or equal to 4"),
    ],
)
def test_what_batch_cannot_do_is_told_when_deploying(name: str, value: Any, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        load({f"batch_training.{name}": value})


def test_a_node_without_a_gpu_asks_for_none() -> None:
    settings = load({"batch_training": {"nodes": 2, "instance_type": "m6i.xlarge", "gpus": 0}}).batch_training
    assert (settings.vcpus, settings.memory_mib, settings.gpus) == (4, 14745, 0)


def test_the_command_of_the_documentation_is_one_that_batch_takes() -> None:
    written = (ROOT / "docs" / "deploy.md").read_text()
    ((name, overrides),) = re.findall(r"submit-job --job-name (\S+) .*?--node-overrides '(.*?)'", written, re.DOTALL)
    asked = json.loads(overrides)
    (group,) = asked["nodePropertyOverrides"]
    variables = {each["name"]: each["value"] for each in group["containerOverrides"]["environment"]}
    assert variables.keys() == {contract.ENV_RUN_ID, contract.ENV_DATASET_RUN, contract.ENV_SETTINGS}
    json.loads(variables[contract.ENV_SETTINGS])
    job = {"jobName": name, "jobQueue": "queue", "jobDefinition": "job", "nodeOverrides": asked}
    shape = get_session().get_service_model("batch").operation_model("SubmitJob").input_shape
    assert ParamValidator().validate(job, shape).generate_report() == ""
