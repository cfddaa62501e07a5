"""Each rule of the deployment: plain moto still needs it, and it does what it is for.

The same questions are asked of plain moto, in this process, and of a server that deployed with the rules. A question
that plain moto answers as AWS does says that its rule, or that part of it, can go.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws, settings
from moto.awslambda.models import LambdaFunction

from embedded.aws.account import REGION
from embedded.aws.deployment import gaps
from embedded.aws.deployment.assembly import Assembly
from embedded.aws.deployment.deploy import DeploymentFailed, deploy
from embedded.aws.host import Host
from tests.embedded.deploying import Deploying, write_assembly
from tests.embedded.gap_probes import PROBES, At, Probe
from tests.embedded.gap_resources import CODE, RESOURCES, template_of

_AS_THE_SERVER = {"stepfunctions": {"execute_state_machine": True}, "lambda": {"use_docker": False}}
_STACK = "gaps"


def _code() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("one.py", "def handler(event, context): return event")
    return archive.getvalue()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deploying]:
    """A server that deploys all resources with the rules."""
    attributes = {probe.key: (probe.resource, probe.attribute) for probe in PROBES if probe.attribute}
    template = template_of(RESOURCES, attributes)
    deploying = Deploying(write_assembly(tmp_path_factory.mktemp("gaps"), {_STACK: template}, files={CODE: _code()}))
    yield deploying
    deploying.stop()


@pytest.fixture(scope="module")
def server(started: Deploying) -> Deploying:
    """The server, when all is deployed."""
    assert started.answers[0].get("error") is None
    return started


@pytest.fixture(scope="module")
def plain_answers(started: Deploying) -> dict[str, Any]:
    """What moto as it comes answers to each probe; while the server deploys."""
    with pytest.MonkeyPatch.context() as patch, mock_aws(config=_AS_THE_SERVER):
        # It would start Docker for the providers of custom resources.
        patch.setattr(LambdaFunction, "invoke", lambda *event: None)
        patch.setattr(settings, "moto_server_host", lambda: "http://localhost")
        clients = cache(lambda service: boto3.client(service, region_name=REGION))
        clients("s3").create_bucket(Bucket=CODE[0])
        clients("s3").put_object(Bucket=CODE[0], Key=CODE[1], Body=_code())
        return {probe.key: _plainly(clients, probe) for probe in PROBES}


def _plainly(clients: Callable[[str], Any], probe: Probe) -> Any:
    """What plain moto answers about a stack for this probe alone; the error where it has no answer."""
    attribute = {probe.key: (probe.resource, probe.attribute)} if probe.attribute else {}
    name, body = f"{_STACK}-{probe.key}", json.dumps(template_of([probe.resource], attribute))
    cloudformation = clients("cloudformation")
    try:
        cloudformation.create_stack(StackName=name, TemplateBody=body)
        (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
        found = cloudformation.list_stack_resources(StackName=name)["StackResourceSummaries"]
        ids = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in found}
        outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", ())}
        return probe.ask(At(clients, name, ids, outputs.get(probe.key, "")), ids[probe.resource])
    except Exception as exc:  # whatever moto fails with, it does not answer
        return exc


@pytest.mark.parametrize("probe", PROBES, ids=[probe.key for probe in PROBES])
def test_plain_moto_still_loses_it(plain_answers: Mapping[str, Any], probe: Probe) -> None:
    answer = plain_answers[probe.key]
    assert answer != probe.want, f"moto does this now: {probe.lost} of the rule {probe.rule} can go"


@pytest.mark.parametrize("probe", PROBES, ids=[probe.key for probe in PROBES])
def test_with_its_rule_it_is_there(server: Deploying, probe: Probe) -> None:
    stack = server.deployed().stacks[_STACK]
    ids = {name: resource.id for name, resource in stack.resources.items()}
    at = At(server.client, _STACK, ids, stack.outputs.get(probe.key, ""))
    assert probe.ask(at, ids[probe.resource]) == probe.want


def test_plain_moto_still_writes_an_access_log_for_each_request_at_once() -> None:
    allowed = {"Effect": "Allow", "Principal": {"Service": "logging.s3.amazonaws.com"}, "Action": "s3:PutObject"}
    policy = {"Version": "2012-10-17", "Statement": [{**allowed, "Resource": "arn:aws:s3:::accesses/*"}]}
    target = {"LoggingEnabled": {"TargetBucket": "accesses", "TargetPrefix": ""}}
    with mock_aws():
        s3 = boto3.client("s3", region_name=REGION)
        for bucket in ("accesses", "watched"):
            s3.create_bucket(Bucket=bucket)
        s3.put_bucket_policy(Bucket="accesses", Policy=json.dumps(policy))
        s3.put_bucket_logging(Bucket="watched", BucketLoggingStatus=target)
        s3.list_objects_v2(Bucket="watched")
        assert s3.list_objects_v2(Bucket="accesses")["KeyCount"] > 0


def test_with_the_rule_no_access_log_is_written(server: Deploying) -> None:
    resources = server.deployed().stacks[_STACK].resources
    server.client("s3").list_objects_v2(Bucket=resources["Bucket"].id)
    assert server.client("s3").list_objects_v2(Bucket=resources["Logs"].id)["KeyCount"] == 0


def test_every_rule_is_probed() -> None:
    rules = {rule.name for rule in gaps.RULES.values()} | {mended.name for mended in gaps.MENDED}
    assert {probe.rule for probe in PROBES} == rules - {"s3-access-logs"}


def test_every_rule_has_been_needed(server: Deploying) -> None:
    created = {rule.name for rule in gaps.RULES.values()} - {"cdk-metadata"}
    assert set(server.deployed().adapted) == created | {mended.name for mended in gaps.MENDED}


def test_what_nothing_is_made_of_is_listed(server: Deploying) -> None:
    assert server.deployed().not_created == {"AWS::CDK::Metadata": 1}


def test_properties_that_nobody_looks_at_are_listed(server: Deploying) -> None:
    assert server.answers[0]["deployed"]["ignored"] == {
        "AWS::Athena::WorkGroup": ["RecursiveDeleteOption"],
        "Custom::S3AutoDeleteObjects": ["ServiceToken"],
    }


def test_a_type_that_nobody_can_create_stops_the_deployment_before_it_begins(tmp_path: Path) -> None:
    template = {"Resources": {"Tape": {"Type": "AWS::Tape::Drive"}, "Call": {"Type": "Custom::Mine"}}}
    host = Host(endpoint="http://127.0.0.1:1", folder=tmp_path, environ={})
    with pytest.raises(DeploymentFailed, match=r"neither moto nor a rule can create AWS::Tape::Drive, Custom::Mine"):
        deploy(Assembly.load(write_assembly(tmp_path, {"tapes": template})), host)
