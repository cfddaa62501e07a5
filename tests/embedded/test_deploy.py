"""Deploying the synthesised stacks: what AWS would have of them is there, to the last policy.

What is expected comes from the templates, with CloudFormation's functions carried out without moto.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from embedded.aws.deployment.assembly import Assembly, BadAssembly
from embedded.aws.deployment.deploy import Deployed, deploy
from embedded.aws.deployment.publishing import write_zip
from embedded.aws.host import Host
from tests.embedded.definition import DeployedValues, substituted_definition
from tests.embedded.deploying import Deploying, write_assembly
from tests.infra.synthesised import VARIATIONS, Synthesised

_CONTEXTS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "all else": {**VARIATIONS["always_on"], **VARIATIONS["managed"], "training.spot": True},
}
"""Both fleets, buckets that stay and that go, clusters for a run and one that stays."""


class Expected:
    """The properties of a resource in its template, each with CloudFormation's functions carried out."""

    def __init__(self, values: DeployedValues, properties: Mapping[str, Any]) -> None:
        self._values = values
        self._properties = properties

    def __getitem__(self, name: str) -> Any:
        return self._values.value(self._properties[name])

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self._properties else default


class App:
    """The app in one variation, as it was synthesised and as it was deployed. number: its place in the server."""

    def __init__(self, folder: Path, server: Deploying, number: int) -> None:
        self.assembly = Assembly.load(folder)
        self.server = server
        self.number = number

    @cached_property
    def deployed(self) -> Deployed:
        """What it came to."""
        return self.server.deployed(self.number)

    def resources(self, kind: str) -> Iterator[tuple[str, Expected]]:
        """Physical id and expected properties of all resources of a type, in both stacks."""
        for stack in self.assembly.stacks:
            values = DeployedValues(stack, self.deployed)
            for name, resource in stack.template["Resources"].items():
                if resource["Type"] == kind:
                    yield self.deployed.stacks[stack.name].resources[name].id, Expected(values, resource["Properties"])

    def only(self, kind: str) -> tuple[str, Expected]:
        """The same of the only one."""
        (found,) = self.resources(kind)
        return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Each variation's assembly."""
    return {name: Synthesised(context, tmp_path_factory.mktemp("cdk")).folder for name, context in _CONTEXTS.items()}


@pytest.fixture(scope="module")
def apps(folders: Mapping[str, Path], others: Deploying) -> Iterator[Mapping[str, App]]:
    """All variations, deployed side by side into one account."""
    server = Deploying(*folders.values())
    yield {name: App(folder, server, number) for number, (name, folder) in enumerate(folders.items())}
    server.stop()


@pytest.fixture(params=_CONTEXTS)
def app(request: pytest.FixtureRequest, apps: Mapping[str, App]) -> App:
    """Each variation in turn."""
    return apps[request.param]


@pytest.fixture
def default_app(apps: Mapping[str, App]) -> App:
    return apps["default"]


def test_the_definition_that_step_functions_has_is_the_synthesised_one_to_the_byte(app: App) -> None:
    machine, _ = app.only("AWS::StepFunctions::StateMachine")
    found = app.server.client("stepfunctions").describe_state_machine(stateMachineArn=machine)
    assert found["definition"] == substituted_definition(app.assembly.stacks[-1], app.deployed)
    assert "${" not in found["definition"]


def test_the_machine_has_its_role_its_logs_and_its_tags(app: App) -> None:
    client = app.server.client("stepfunctions")
    machine, expected = app.only("AWS::StepFunctions::StateMachine")
    found = client.describe_state_machine(stateMachineArn=machine)
    assert found["roleArn"] == expected["RoleArn"]
    assert _lower(expected["LoggingConfiguration"]) == found["loggingConfiguration"]
    assert client.list_tags_for_resource(resourceArn=machine)["tags"] == _lower(expected["Tags"])


def test_nothing_was_left_out(app: App) -> None:
    written = {name for stack in app.assembly.stacks for name in stack.template["Resources"]}
    assert {name for stack in app.deployed.stacks.values() for name in stack.resources} == written
    assert app.deployed.not_created == {}


def test_the_ignored_properties_are_those_that_change_nothing_here(app: App) -> None:
    assert {(kind, name) for kind, names in app.deployed.ignored.items() for name in names} <= {
        ("AWS::Athena::WorkGroup", "RecursiveDeleteOption"),  # of deleting
        ("AWS::Batch::ComputeEnvironment", "ReplaceComputeEnvironment"),  # of updating
        ("AWS::Batch::ComputeEnvironment", "UpdatePolicy"),
        ("AWS::KMS::Key", "RotationPeriodInDays"),  # 90 days at least
        ("Custom::AWS", "InstallLatestAwsSdk"),  # for a program that is not run
        ("Custom::AWS", "Update"),
        ("Custom::S3AutoDeleteObjects", "ServiceToken"),
    }


def test_every_role_has_the_policies_of_the_templates_and_no_others(app: App) -> None:
    iam = app.server.client("iam")
    inline: dict[str, dict[str, Any]] = {role: {} for role, _ in app.resources("AWS::IAM::Role")}
    for _, policy in app.resources("AWS::IAM::Policy"):
        for role in policy["Roles"]:
            inline[role][policy["PolicyName"]] = policy["PolicyDocument"]
    for role, expected in app.resources("AWS::IAM::Role"):
        names = iam.list_role_policies(RoleName=role)["PolicyNames"]
        found = {name: iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names}
        assert found == inline[role]
        attached = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
        assert [policy["PolicyArn"] for policy in attached] == expected.get("ManagedPolicyArns", [])
        assert iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"] == expected["AssumeRolePolicyDocument"]


def test_policies_that_aws_maintains_say_what_they_allow(app: App) -> None:
    iam = app.server.client("iam")
    attached = {arn for _, role in app.resources("AWS::IAM::Role") for arn in role.get("ManagedPolicyArns", [])}
    assert "arn:aws:iam::aws:policy/service-role/AWSBatchServiceRole" in attached
    for arn in attached:
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
        assert document["Statement"]


def test_profiles_hold_their_role(app: App) -> None:
    for profile, expected in app.resources("AWS::IAM::InstanceProfile"):
        found = app.server.client("iam").get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]
        assert [role["RoleName"] for role in found["Roles"]] == expected["Roles"]


def test_job_definitions_are_those_of_the_template(app: App) -> None:
    batch = app.server.client("batch")
    definitions = list(app.resources("AWS::Batch::JobDefinition"))
    assert len(definitions) == 3
    for job, expected in definitions:
        (found,) = batch.describe_job_definitions(jobDefinitions=[job])["jobDefinitions"]
        container, wanted = found["containerProperties"], expected["ContainerProperties"]
        for name in ("Command", "ExecutionRoleArn", "Image", "JobRoleArn"):
            assert container[name[0].lower() + name[1:]] == wanted[name]
        for name in ("Environment", "ResourceRequirements"):
            assert container[name[0].lower() + name[1:]] == _lower(wanted[name])
        log = wanted["LogConfiguration"]
        assert container["logConfiguration"] == {"logDriver": log["LogDriver"], "options": log["Options"]}
        retry = _lower(expected["RetryStrategy"])
        for condition in retry.get("evaluateOnExit", ()):
            condition["action"] = condition["action"].lower()  # Batch takes both
        assert found["retryStrategy"] == retry
        assert found["timeout"] == _lower(expected["Timeout"])
        assert found["platformCapabilities"] == expected["PlatformCapabilities"]
        assert found["propagateTags"] is True


def test_queues_feed_their_compute_environment(app: App) -> None:
    batch = app.server.client("batch")
    for queue, expected in app.resources("AWS::Batch::JobQueue"):
        (found,) = batch.describe_job_queues(jobQueues=[queue])["jobQueues"]
        assert found["state"] == "ENABLED"
        assert found["computeEnvironmentOrder"] == _lower(expected["ComputeEnvironmentOrder"])
        environments = [order["computeEnvironment"] for order in found["computeEnvironmentOrder"]]
        described = batch.describe_compute_environments(computeEnvironments=environments)["computeEnvironments"]
        assert [environment["status"] for environment in described] == ["VALID"]


def test_functions_have_their_code_their_environment_and_their_log_group(app: App) -> None:
    client = app.server.client("lambda")
    for name, expected in app.resources("AWS::Lambda::Function"):
        found = client.get_function_configuration(FunctionName=name)
        for setting in ("Handler", "Role", "Runtime", "Timeout"):
            assert found[setting] == expected[setting]
        assert found.get("Environment", {}).get("Variables", {}) == expected.get("Environment", {}).get("Variables", {})
        if group := expected.get("LoggingConfig"):
            assert found["LoggingConfig"]["LogGroup"] == group["LogGroup"]
        archive = io.BytesIO()
        write_zip(app.assembly.folder / f"asset.{expected['Code']['S3Key'].removesuffix('.zip')}", archive)
        assert found["CodeSha256"] == base64.b64encode(hashlib.sha256(archive.getvalue()).digest()).decode()


def test_a_function_that_fails_unseen_leaves_its_event_in_a_queue(app: App) -> None:
    _, expected = app.only("AWS::Lambda::EventInvokeConfig")
    found = app.server.client("lambda").get_function_event_invoke_config(FunctionName=expected["FunctionName"])
    assert found["DestinationConfig"] == expected["DestinationConfig"]
    assert found["MaximumRetryAttempts"] == expected["MaximumRetryAttempts"]


def test_the_rule_of_failed_executions_has_its_pattern_and_its_target(app: App) -> None:
    events = app.server.client("events")
    name, expected = app.only("AWS::Events::Rule")
    assert json.loads(events.describe_rule(Name=name)["EventPattern"]) == expected["EventPattern"]
    assert events.list_targets_by_rule(Rule=name)["Targets"] == expected["Targets"]
    function = expected["Targets"][0]["Arn"]
    (allowed,) = json.loads(app.server.client("lambda").get_policy(FunctionName=function)["Policy"])["Statement"]
    assert allowed["Principal"] == {"Service": "events.amazonaws.com"}


def test_buckets_keys_topics_and_queues_have_their_policies(app: App) -> None:
    s3, kms, sns, sqs = (app.server.client(service) for service in ("s3", "kms", "sns", "sqs"))
    for _, expected in app.resources("AWS::S3::BucketPolicy"):
        assert json.loads(s3.get_bucket_policy(Bucket=expected["Bucket"])["Policy"]) == expected["PolicyDocument"]
    key, expected = app.only("AWS::KMS::Key")
    assert json.loads(kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"]) == expected["KeyPolicy"]
    assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"] is True
    _, expected = app.only("AWS::SNS::TopicPolicy")
    topic = sns.get_topic_attributes(TopicArn=expected["Topics"][0])["Attributes"]
    assert json.loads(topic["Policy"]) == expected["PolicyDocument"]
    assert topic["KmsMasterKeyId"].endswith(key)
    _, expected = app.only("AWS::SQS::QueuePolicy")
    queue = sqs.get_queue_attributes(QueueUrl=expected["Queues"][0], AttributeNames=["Policy"])["Attributes"]
    assert json.loads(queue["Policy"]) == expected["PolicyDocument"]


def test_log_groups_keep_their_events_as_long_as_the_template_says(app: App) -> None:
    for group, expected in app.resources("AWS::Logs::LogGroup"):
        (found,) = app.server.client("logs").describe_log_groups(logGroupNamePrefix=group)["logGroups"]
        assert found["retentionInDays"] == expected["RetentionInDays"]


def test_the_fleet_starts_empty_and_its_instances_join_the_cluster_of_batch(default_app: App) -> None:
    group, expected = default_app.only("AWS::AutoScaling::AutoScalingGroup")
    found = default_app.server.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[group])
    (fleet,) = found["AutoScalingGroups"]
    assert (fleet["MinSize"], fleet["DesiredCapacity"], fleet["MaxSize"]) == (0, 0, int(expected["MaxSize"]))
    template, _ = default_app.only("AWS::EC2::LaunchTemplate")
    assert fleet["LaunchTemplate"]["LaunchTemplateId"] == template
    ec2 = default_app.server.client("ec2")
    (version,) = ec2.describe_launch_template_versions(LaunchTemplateId=template)["LaunchTemplateVersions"]
    environments = default_app.server.client("batch").describe_compute_environments()["computeEnvironments"]
    (cluster,) = {found["ecsClusterArn"] for found in environments if found["type"] == "UNMANAGED"}
    script = base64.b64decode(version["LaunchTemplateData"]["UserData"]).decode()
    assert f'"ECS_CLUSTER={cluster.partition("/")[2]}"' in script


def test_the_cluster_that_stays_has_its_machines_and_its_tags(apps: Mapping[str, App]) -> None:
    app = apps["all else"]
    identifier, expected = app.only("AWS::EMR::Cluster")
    emr = app.server.client("emr")
    found = emr.describe_cluster(ClusterId=identifier)["Cluster"]
    for name in ("Name", "ReleaseLabel", "SecurityConfiguration", "ServiceRole", "Tags"):
        assert found[name] == expected[name]
    assert [application["Name"] for application in found["Applications"]] == ["Spark"]
    assert found["Ec2InstanceAttributes"]["IamInstanceProfile"] == expected["JobFlowRole"]
    groups = emr.list_instance_groups(ClusterId=identifier)["InstanceGroups"]
    assert {
        (group["InstanceGroupType"], group["InstanceType"], group["RequestedInstanceCount"]) for group in groups
    } == {
        ("MASTER", "m5.2xlarge", 1),
        ("CORE", "m5.2xlarge", 1),
    }


def test_what_emr_encrypts_is_what_the_template_says(app: App) -> None:
    name, expected = app.only("AWS::EMR::SecurityConfiguration")
    found = app.server.client("emr").describe_security_configuration(Name=name)["SecurityConfiguration"]
    assert json.loads(found) == expected["SecurityConfiguration"]


def test_files_lie_where_the_templates_look_for_them(app: App) -> None:
    s3 = app.server.client("s3")
    for asset in app.assembly.files:
        size = s3.head_object(Bucket=asset.bucket, Key=asset.key)["ContentLength"]
        assert asset.zipped or size == asset.path.stat().st_size


def test_images_have_the_names_that_the_deployed_stacks_call(app: App) -> None:
    called = {job["ContainerProperties"]["Image"] for _, job in app.resources("AWS::Batch::JobDefinition")}
    images = app.server.answers[app.number]["images"]
    assert called < set(images)
    (training,) = set(images) - called
    assert training in substituted_definition(app.assembly.stacks[-1], app.deployed)
    assert all(images[image] for image in called)


def test_stacks_give_each_other_what_they_export(default_app: App) -> None:
    outputs = default_app.deployed.stacks["stockflow-data"].outputs
    assert outputs["MarketBucket"] in {bucket for bucket, _ in default_app.resources("AWS::S3::Bucket")}
    exported = default_app.deployed.exports
    assert outputs["MarketBucket"] in exported.values()
    assert all(name.startswith("stockflow-data:") for name in exported)


def _bare(stack: Mapping[str, Any]) -> dict[str, Any]:
    """A template without what asks for a bootstrapped account."""
    return {"Resources": {**stack["Resources"]}, "Outputs": stack["Outputs"]}


@pytest.fixture(scope="module")
def others(folders: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deploying]:
    """A server that deploys the data stack with one bucket more, then stacks that cannot be created."""
    data = _bare(Assembly.load(folders["default"]).stacks[0].template)
    data["Resources"] = {"Another": {"Type": "AWS::S3::Bucket"}, **data["Resources"]}
    role = {
        "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": []},
        "ManagedPolicyArns": ["arn:aws:iam::aws:policy/Unheard"],
    }
    failing = {"Resources": {"Reader": {"Type": "AWS::IAM::Role", "Properties": role}}}
    parameter = {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/not/there"}
    lacking = {"Parameters": {"Version": parameter}, "Resources": {"Logs": {"Type": "AWS::S3::Bucket"}}}
    stacks = {"stockflow-data": data}, {"readers": failing}, {"lacking": lacking}, {"readers": failing}
    written = [write_assembly(tmp_path_factory.mktemp("other"), templates) for templates in stacks]
    server = Deploying(*written, afresh=True)
    yield server
    server.stop()


def test_resources_keep_their_names_in_a_fresh_account_whatever_else_a_stack_has(
    default_app: App, others: Deploying
) -> None:
    first = default_app.server.answers[0]["deployed"]["stacks"]["stockflow-data"]["resources"]
    again = others.answers[0]["deployed"]["stacks"]["stockflow-data"]["resources"]
    assert {name: again[name] for name in first} == first
    assert len({resource["id"] for resource in again.values()}) >= len(again) - 4  # a bucket's policy has its name


def test_a_stack_that_fails_says_which_resource_and_why(others: Deploying) -> None:
    assert others.answers[1]["error"] == (
        "stack readers was not created: Reader (AWS::IAM::Role): "
        "AttachRolePolicy: Policy arn:aws:iam::aws:policy/Unheard does not exist or is not attachable."
    )


def test_a_parameter_that_is_not_there_is_named(others: Deploying) -> None:
    reason = "SSM has no parameter /not/there: put it there first"
    assert others.answers[2]["error"] == f"stack lacking was not created: {reason}"


def test_what_moto_draws_after_a_deployment_is_chance_again(others: Deploying) -> None:
    assert others.answers[1]["error"] == others.answers[3]["error"]
    assert others.answers[1]["random"] != others.answers[3]["random"]


def test_a_stack_that_the_assembly_does_not_have_is_named(folders: Mapping[str, Path]) -> None:
    host = Host(endpoint="http://127.0.0.1:1", folder=folders["default"], environ={})
    with pytest.raises(BadAssembly, match="has no stack lost: it has stockflow-data, stockflow-compute"):
        deploy(Assembly.load(folders["default"]), host, only_stacks=["lost"])


def _lower(value: Any) -> Any:
    """Names as most of AWS's APIs have them."""
    if isinstance(value, list):
        return [_lower(item) for item in value]
    if isinstance(value, dict):
        return {name[0].lower() + name[1:]: _lower(item) for name, item in value.items()}
    return value
