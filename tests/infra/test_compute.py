"""What runs in the account: instances, jobs, the cluster, and what can reach them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from app.errors import StockflowError, StorageError, YahooError
from infra import inference
from infra.root import ROOT
from tests.infra.services import tasks
from tests.infra.synthesised import VARIATIONS, Synthesised
from tests.infra.templates import only, resources, text

ENVIRONMENT = "AWS::Batch::ComputeEnvironment"
JOB = "AWS::Batch::JobDefinition"
GROUP = "AWS::AutoScaling::AutoScalingGroup"
FARGATE_GIB = {1: (2, 8), 2: (4, 16), 4: (8, 30), 8: (16, 60)}
"""Least and greatest memory that Fargate offers with so many vCPUs."""


def fleet(app: Synthesised) -> dict[str, Any]:
    """The compute environment that is not Fargate's."""
    (found,) = (
        environment
        for environment in resources(app.compute, ENVIRONMENT).values()
        if environment.get("ComputeResources", {}).get("Type") != "FARGATE"
    )
    return found


def jobs(app: Synthesised) -> dict[str, dict[str, Any]]:
    """Job definitions by their command."""
    return {job["ContainerProperties"]["Command"][0]: job for job in resources(app.compute, JOB).values()}


def needs(job: dict[str, Any]) -> dict[str, int]:
    """vCPUs and MiB of a job."""
    return {each["Type"]: int(each["Value"]) for each in job["ContainerProperties"]["ResourceRequirements"]}


# --- nothing is public --------------------------------------------------------------------------


def test_nothing_lets_anything_in(any_app: Synthesised) -> None:
    assert not resources(any_app.compute, "AWS::EC2::SecurityGroupIngress")
    for group in resources(any_app.compute, "AWS::EC2::SecurityGroup").values():
        assert "SecurityGroupIngress" not in group


def test_nothing_is_an_entrance_and_nothing_costs_by_the_hour_while_idle(any_app: Synthesised) -> None:
    kinds = {resource["Type"] for stack in (any_app.data, any_app.compute) for resource in stack["Resources"].values()}
    entrances = ("AWS::Lambda::Url", "AWS::ApiGateway", "AWS::ElasticLoadBalancing", "AWS::AppSync", "AWS::CloudFront")
    by_the_hour = ("AWS::EC2::NatGateway", "AWS::EC2::EIP", "AWS::EC2::Instance", "AWS::EC2::Host", "AWS::RDS")
    assert not [kind for kind in kinds if kind.startswith((*entrances, *by_the_hour))]


def test_no_policy_of_a_resource_lets_everybody_in(any_app: Synthesised) -> None:
    documents = [
        found[name]
        for stack in (any_app.data, any_app.compute)
        for resource in stack["Resources"].values()
        for found in [resource.get("Properties", {})]
        for name in ("PolicyDocument", "KeyPolicy", "AssumeRolePolicyDocument")
        if name in found
    ]
    allowing = [
        statement for document in documents for statement in document["Statement"] if statement["Effect"] == "Allow"
    ]
    assert len(allowing) > 50
    assert not [statement for statement in allowing if '"*"' in json.dumps(statement.get("Principal", ""))]
    for bucket in resources(any_app.data, "AWS::S3::Bucket").values():
        assert list(bucket["PublicAccessBlockConfiguration"].values()) == [True] * 4


def test_a_lambda_is_invoked_by_the_rule_of_this_deployment_and_by_roles_only(any_app: Synthesised) -> None:
    (rule,) = resources(any_app.compute, "AWS::Events::Rule")
    permission = only(any_app.compute, "AWS::Lambda::Permission")
    assert (permission["Principal"], text(permission["SourceArn"])) == ("events.amazonaws.com", f"<{rule}.Arn>")


def test_what_runs_takes_part_in_the_network_that_lets_nothing_in(any_app: Synthesised) -> None:
    for environment in resources(any_app.compute, ENVIRONMENT).values():
        if "ComputeResources" in environment:
            (group,) = environment["ComputeResources"]["SecurityGroupIds"]
            assert text(group).startswith("<NetworkJobs")
    for template in resources(any_app.compute, "AWS::EC2::LaunchTemplate").values():
        for interface in template["LaunchTemplateData"].get("NetworkInterfaces", ()):
            assert [text(group)[:12] for group in interface["Groups"]] == ["<NetworkJobs"]


def test_instances_give_their_credentials_to_imdsv2_and_to_no_container(any_app: Synthesised) -> None:
    templates = resources(any_app.compute, "AWS::EC2::LaunchTemplate").values()
    assert templates
    for template in templates:
        options = template["LaunchTemplateData"]["MetadataOptions"]
        assert options == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    metadata = security(any_app)["InstanceMetadataServiceConfiguration"]
    assert metadata == {"MinimumInstanceMetadataServiceVersion": 2, "HttpPutResponseHopLimit": 1}


def test_every_disk_is_encrypted(any_app: Synthesised) -> None:
    for template in resources(any_app.compute, "AWS::EC2::LaunchTemplate").values():
        disks = template["LaunchTemplateData"]["BlockDeviceMappings"]
        assert [disk["DeviceName"] for disk in disks] == ["/dev/xvda"]  # the image's own: none is left as it was
        assert all(disk["Ebs"]["Encrypted"] and disk["Ebs"]["DeleteOnTermination"] for disk in disks)
    at_rest = security(any_app)["EncryptionConfiguration"]["AtRestEncryptionConfiguration"]
    assert at_rest["LocalDiskEncryptionConfiguration"]["EnableEbsEncryption"] is True


def security(app: Synthesised) -> dict[str, Any]:
    """EMR's security configuration."""
    found: dict[str, Any] = only(app.compute, "AWS::EMR::SecurityConfiguration")["SecurityConfiguration"]
    return found


# --- the ingest fleet ---------------------------------------------------------------------------


def test_a_type_that_batch_refuses_gets_an_unmanaged_environment_and_a_group_of_no_instances(
    default_app: Synthesised,
) -> None:
    environment = fleet(default_app)
    assert environment["Type"].upper() == "UNMANAGED"
    assert "ComputeResources" not in environment
    group = only(default_app.compute, GROUP)
    assert (group["MinSize"], group["MaxSize"]) == ("0", "4")
    assert "DesiredCapacity" not in group  # a deploy must not end the instances of a running ingest
    template = only(default_app.compute, "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]
    assert template["InstanceType"] == "t2.2xlarge"
    (interface,) = template["NetworkInterfaces"]
    assert interface["AssociatePublicIpAddress"] is True


def test_the_group_s_instances_join_the_environment_s_cluster(default_app: Synthesised) -> None:
    (environment,) = (
        name for name, found in resources(default_app.compute, ENVIRONMENT).items() if found == fleet(default_app)
    )
    lookup = only(default_app.compute, "Custom::AWS")
    call = json.loads(default_app.compute_stack.value(lookup["Create"]))
    arn = default_app.compute_stack.value({"Fn::GetAtt": [environment, "ComputeEnvironmentArn"]})
    assert (call["service"], call["action"]) == ("Batch", "DescribeComputeEnvironments")
    assert call["parameters"] == {"computeEnvironments": [arn]}
    (path,) = call["outputPaths"]
    template = only(default_app.compute, "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]
    start = json.dumps(template["UserData"])
    (name,) = resources(default_app.compute, "Custom::AWS")
    assert f'"Fn::GetAtt": ["{name}", "{path}"]' in start
    assert start.index("ECS_CLUSTER=") < start.index(path) < start.index("/etc/ecs/ecs.config")


def test_other_types_are_left_to_batch_on_spot_when_asked_for(
    managed_app: Synthesised, always_on_app: Synthesised
) -> None:
    for app, purchase in ((managed_app, "SPOT"), (always_on_app, "EC2")):
        environment = fleet(app)
        assert environment["Type"].upper() == "MANAGED"
        asked = environment["ComputeResources"]
        assert (asked["Type"], asked["InstanceTypes"]) == (purchase, ["m6i.2xlarge"])
        assert (asked["MinvCpus"], asked["MaxvCpus"]) == (0, 4 * 8)
        assert not resources(app.compute, GROUP)
        assert not resources(app.compute, "Custom::AWS")


def test_the_shards_that_share_an_instance_fit_into_it(default_app: Synthesised) -> None:
    shard = needs(jobs(default_app)["ingest"])
    together = default_app.lambda_file("defaults.json")["fleet"]["jobs_per_instance"]
    assert together * shard["VCPU"] <= 8
    assert together * shard["MEMORY"] <= 32 * 1024 - 1024  # the agent and the system need some too
    assert together == 8


# --- the jobs -----------------------------------------------------------------------------------


def test_a_job_is_tried_again_only_where_that_can_help(any_app: Synthesised) -> None:
    for name, attempts in (("ingest", 3), ("dataset", 3), ("feed", 2)):
        strategy = jobs(any_app)[name]["RetryStrategy"]
        *again, last = strategy["EvaluateOnExit"]
        assert strategy["Attempts"] == attempts
        assert last == {"Action": "EXIT", "OnReason": "*"}
        assert [{key: value for key, value in rule.items() if key != "Action"} for rule in again] == [
            {"OnStatusReason": "Host EC2*"},
            {"OnReason": "CannotPullContainerError:*"},
            {"OnExitCode": str(StorageError.exit_code)},
            {"OnExitCode": str(YahooError.exit_code)},
        ]
        assert {rule["Action"] for rule in again} == {"RETRY"}
        assert len(strategy["EvaluateOnExit"]) <= 5  # Batch takes no more


def test_an_exit_that_cannot_pass_is_told_apart_from_one_that_can() -> None:
    passing = (StorageError, YahooError)
    others = {error.exit_code for error in subclasses(StockflowError) if not issubclass(error, passing)}
    assert {error.exit_code for error in passing}.isdisjoint({0, 1, 2, *others})


def subclasses(kind: type[StockflowError]) -> list[type[StockflowError]]:
    return [found for child in kind.__subclasses__() for found in (child, *subclasses(child))]


def test_the_machine_waits_as_long_as_batch_may_take_with_all_tries(any_app: Synthesised) -> None:
    limits = any_app.states("Task")
    for state, task in tasks(any_app, {}).items():
        if ":batch:" in task.resource:
            job = jobs(any_app)[task.parameters["ContainerOverrides"]["Command"][0]]
            tries = job["RetryStrategy"]["Attempts"] * job["Timeout"]["AttemptDurationSeconds"]
            assert limits[state]["TimeoutSeconds"] > tries, state


def test_fargate_offers_the_jobs_their_memory(any_app: Synthesised) -> None:
    for job in jobs(any_app).values():
        if job["PlatformCapabilities"] == ["FARGATE"]:
            least, greatest = FARGATE_GIB[needs(job)["VCPU"]]
            assert least * 1024 <= needs(job)["MEMORY"] <= greatest * 1024
            assert job["ContainerProperties"]["NetworkConfiguration"] == {"AssignPublicIp": "ENABLED"}


def test_every_job_has_a_role_of_its_own_logs_and_no_privilege(any_app: Synthesised) -> None:
    found = {name: job["ContainerProperties"] for name, job in jobs(any_app).items()}
    assert found.keys() == {"ingest", "dataset", "feed"}
    roles = {text(container["JobRoleArn"]) for container in found.values()}
    started = {text(container["ExecutionRoleArn"]) for container in found.values()}
    assert len(roles | started) == 6
    for container in found.values():
        assert container["LogConfiguration"]["LogDriver"] == "awslogs"
        assert not container.get("Privileged")
        assert not container.keys() & {"Volumes", "MountPoints", "User"}


# --- the cluster --------------------------------------------------------------------------------


def test_a_cluster_stays_only_when_it_is_asked_for(
    default_app: Synthesised, managed_app: Synthesised, always_on_app: Synthesised
) -> None:
    assert not resources(default_app.compute, "AWS::EMR::Cluster")
    assert not resources(managed_app.compute, "AWS::EMR::Cluster")
    assert len(resources(always_on_app.compute, "AWS::EMR::Cluster")) == 1


def test_the_cluster_that_stays_is_like_one_of_an_execution(
    default_app: Synthesised, always_on_app: Synthesised
) -> None:
    stays = only(always_on_app.compute, "AWS::EMR::Cluster")
    asked = tasks(default_app, {})["CreateCluster"].parameters
    same = ("ReleaseLabel", "Applications", "EbsRootVolumeSize", "VisibleToAllUsers")
    assert {name: stays[name] for name in same} == {name: asked[name] for name in same}
    assert {"SecurityConfiguration", "ServiceRole", "JobFlowRole", "LogUri"} <= stays.keys() & asked.keys()
    groups = {group["InstanceRole"]: group for group in asked["Instances"].pop("InstanceGroups")}
    for role, name in (("MASTER", "MasterInstanceGroup"), ("CORE", "CoreInstanceGroup")):
        group = stays["Instances"].pop(name)
        for key in ("InstanceType", "InstanceCount", "Market", "EbsConfiguration"):
            assert group[key] == groups[role][key]
    assert stays["Instances"].keys() == asked["Instances"].keys()
    tagged = {tag["Key"]: tag["Value"] for tag in stays["Tags"]}
    assert tagged["for-use-with-amazon-emr-managed-policies"] == "true"


def test_traffic_and_data_of_the_cluster_are_encrypted(any_app: Synthesised) -> None:
    encryption = security(any_app)["EncryptionConfiguration"]
    assert encryption["EnableInTransitEncryption"] is True
    assert encryption["EnableAtRestEncryption"] is True
    certificate = encryption["InTransitEncryptionConfiguration"]["TLSCertificateConfiguration"]
    assert certificate["CertificateProviderType"] == "PEM"
    assert text(certificate["S3Object"]).startswith("s3://")


@pytest.mark.parametrize("built", ["environment.tar.gz", "certificates.zip"])
def test_without_what_make_emr_builds_a_deploy_is_refused_with_a_sentence(default_app: Synthesised, built: str) -> None:
    refusals = [
        assertion["AssertDescription"]
        for rule in default_app.compute["Rules"].values()
        for assertion in rule["Assertions"]
        if _is_false(assertion["Assert"], default_app.compute["Parameters"])
    ]
    told = f"build/emr/{built} is missing: type `make emr`, deploy again"
    assert (told in refusals) != (ROOT / "build" / "emr" / built).exists()


def test_what_make_emr_builds_is_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = {"environment.tar.gz": b"packages", "certificates.zip": b"keys"}
    (tmp_path / "build" / "emr").mkdir(parents=True)
    for name, body in built.items():
        (tmp_path / "build" / "emr" / name).write_bytes(body)
    shutil.copytree(ROOT / "emr", tmp_path / "emr")
    monkeypatch.setattr(inference, "ROOT", tmp_path)
    app = Synthesised(VARIATIONS["default"], tmp_path / "out")
    uploaded = {path.read_bytes() for path in app.folder.glob("asset.*") if path.is_file()}
    assert uploaded.issuperset(built.values())
    assert not [name for name in app.compute.get("Rules", {}) if name.endswith("IsBuilt")]


def _is_false(condition: dict[str, Any], parameters: dict[str, Any]) -> bool:
    """Whether a rule compares a parameter with something else than its default."""
    match condition:
        case {"Fn::Equals": [{"Ref": name}, value]}:
            return bool(parameters[name]["Default"] != value)
    return False
