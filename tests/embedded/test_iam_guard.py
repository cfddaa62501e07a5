"""The guard in front of a real moto: roles made through the API, called with boto3 over HTTP."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.iam.access_control import PermissionResult
from moto.s3.models import s3_backends

from embedded.aws.account import ACCOUNT, PARTITION, Credentials, client
from tests.embedded.iam_requests import HERE

Statement = Mapping[str, Any]
TRUST = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
ENCRYPTED_TRANSPORT = [
    {
        "Effect": "Deny",
        "Principal": {"AWS": "*"},
        "Action": "s3:*",
        "Resource": ["arn:aws:s3:::market", "arn:aws:s3:::market/*"],
        "Condition": condition,
    }
    for condition in ({"Bool": {"aws:SecureTransport": "false"}}, {"NumericLessThan": {"s3:TlsVersion": 1.2}})
]
"""How the CDK forbids requests that are not encrypted."""
OPEN = {"Effect": "Allow", "Action": "*", "Resource": "*"}


def document(*statements: Statement) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def fetch(url: str) -> tuple[int, bytes]:
    """Status and body of what stands at a URL."""
    try:
        with urllib.request.urlopen(url) as answer:  # noqa: S310 - of this test's server
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read()


def allow(actions: str | Sequence[str], resources: str | Sequence[str] = "*", **condition: Any) -> Statement:
    return {"Effect": "Allow", "Action": actions, "Resource": resources} | (
        {"Condition": condition} if condition else {}
    )


@dataclass
class Guarded:
    """A running server, and roles in it."""

    url: str
    numbers: Iterator[int] = field(default_factory=itertools.count)
    operators: dict[str, Any] = field(default_factory=dict)

    def operator(self, service: str) -> Any:
        if service not in self.operators:
            self.operators[service] = client(service, self.url)
        return self.operators[service]

    def role(self, *statements: Statement, trust: Statement = TRUST, **more: Any) -> str:
        """Name of a new role with an inline policy."""
        name = f"role-{next(self.numbers)}"
        self.operator("iam").create_role(RoleName=name, AssumeRolePolicyDocument=document(trust), **more)
        self.write(name, *statements)
        return name

    def write(self, role: str, *statements: Statement) -> None:
        if statements:
            self.operator("iam").put_role_policy(
                RoleName=role, PolicyName="inline", PolicyDocument=document(*statements)
            )

    def credentials(self, role: str, **more: Any) -> Credentials:
        arn = f"arn:aws:iam::{ACCOUNT}:role/{role}"
        made = self.operator("sts").assume_role(RoleArn=arn, RoleSessionName="evening", **more)["Credentials"]
        return Credentials(made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"])

    def as_role(self, service: str, *statements: Statement) -> Any:
        """A client with the credentials of a new role."""
        return client(service, self.url, self.credentials(self.role(*statements)))

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(fetch(f"{self.url}/_embedded/iam")[1])
        return found

    def calls(self, role: str) -> list[tuple[str, str, int, bool]]:
        return [
            (call["action"], call["resource"], call["count"], call["allowed"])
            for call in self.report()["roles"][role]["calls"]
        ]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.embedded.guarded"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        made = Guarded(server.stdout.readline().strip())
        s3 = made.operator("s3")
        s3.create_bucket(Bucket="market")
        s3.put_bucket_policy(Bucket="market", Policy=document(*ENCRYPTED_TRANSPORT))
        s3.put_object(Bucket="market", Key="bars/a", Body=b"bars")
        yield made
        server.kill()


def code(call: Any, **parameters: Any) -> str:
    """The error that a call ends with; empty when it succeeds."""
    try:
        call(**parameters)
    except ClientError as error:
        found: str = error.response["Error"]["Code"]
        return found
    return ""


# --- what roles may do ----------------------------------------------------------------------------


def test_a_role_does_what_its_policy_allows_and_nothing_else(guarded: Guarded) -> None:
    role = guarded.role(allow(["s3:GetObject", "s3:PutObject"], "arn:aws:s3:::market/bars/*"))
    s3 = client("s3", guarded.url, guarded.credentials(role))
    s3.put_object(Bucket="market", Key="bars/é 1%.parquet", Body=b"x")
    assert s3.get_object(Bucket="market", Key="bars/é 1%.parquet")["Body"].read() == b"x"
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket="market", Key="models/a", Body=b"x")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert refused.value.response["Error"] == {
        "Code": "AccessDenied",
        "Message": f"User: arn:aws:sts::{ACCOUNT}:assumed-role/{role}/evening is not authorized to perform: "
        's3:PutObject on resource: "arn:aws:s3:::market/models/a" '
        "because no identity-based policy allows the s3:PutObject action",
    }
    assert code(s3.head_object, Bucket="market", Key="models/a") == "403"
    assert guarded.calls(role) == [
        ("s3:GetObject", "arn:aws:s3:::market/bars/é 1%.parquet", 1, True),
        ("s3:GetObject", "arn:aws:s3:::market/models/a", 1, False),
        ("s3:PutObject", "arn:aws:s3:::market/bars/é 1%.parquet", 1, True),
        ("s3:PutObject", "arn:aws:s3:::market/models/a", 1, False),
    ]


def test_only_who_may_list_a_bucket_learns_that_an_object_is_missing(guarded: Guarded) -> None:
    reads = allow("s3:GetObject", "arn:aws:s3:::market/*")
    assert code(guarded.as_role("s3", reads).get_object, Bucket="market", Key="none") == "AccessDenied"
    both = guarded.as_role("s3", reads, allow("s3:ListBucket", "arn:aws:s3:::market"))
    assert code(both.get_object, Bucket="market", Key="none") == "NoSuchKey"
    assert code(both.head_object, Bucket="market", Key="none") == "404"


def test_a_changed_policy_holds_from_the_next_call_on(guarded: Guarded) -> None:
    role = guarded.role()
    s3 = client("s3", guarded.url, guarded.credentials(role))
    assert code(s3.list_objects_v2, Bucket="market") == "AccessDenied"
    guarded.write(role, allow("s3:ListBucket", "arn:aws:s3:::market", StringLike={"s3:prefix": "bars/*"}))
    assert code(s3.list_objects_v2, Bucket="market", Prefix="bars/a") == ""
    assert code(s3.list_objects_v2, Bucket="market", Prefix="runs/") == "AccessDenied"
    guarded.operator("iam").delete_role_policy(RoleName=role, PolicyName="inline")
    assert code(s3.list_objects_v2, Bucket="market", Prefix="bars/a") == "AccessDenied"


def test_a_managed_policy_counts_in_its_default_version(guarded: Guarded) -> None:
    role, iam = guarded.role(), guarded.operator("iam")
    arn = iam.create_policy(PolicyName="readers", PolicyDocument=document(allow("s3:ListBucket")))["Policy"]["Arn"]
    iam.attach_role_policy(RoleName=role, PolicyArn=arn)
    s3 = client("s3", guarded.url, guarded.credentials(role))
    assert code(s3.head_bucket, Bucket="market") == ""
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=document(allow("sqs:*")), SetAsDefault=True)
    assert code(s3.head_bucket, Bucket="market") == "403"
    assert {"role": role, "policy": arn, "sid": 0, "action": "sqs:*", "resources": ["*"]} in guarded.report()[
        "unused_grants"
    ]


def test_a_boundary_and_a_session_policy_narrow_what_a_role_may(guarded: Guarded) -> None:
    boundary = guarded.operator("iam").create_policy(
        PolicyName="boundary", PolicyDocument=document(allow("s3:Get*"), allow("s3:List*"))
    )
    role = guarded.role(OPEN, PermissionsBoundary=boundary["Policy"]["Arn"])
    whole = client("s3", guarded.url, guarded.credentials(role))
    assert code(whole.head_bucket, Bucket="market") == ""
    assert code(whole.put_object, Bucket="market", Key="bars/b") == "AccessDenied"
    narrowed = client("s3", guarded.url, guarded.credentials(role, Policy=document(allow("s3:GetObject"))))
    assert code(narrowed.get_object, Bucket="market", Key="bars/a") == ""
    assert code(narrowed.list_objects_v2, Bucket="market") == "AccessDenied"


def test_who_a_role_trusts_may_assume_it(guarded: Guarded) -> None:
    service = {**TRUST, "Principal": {"Service": "batch.amazonaws.com"}}
    may = allow("sts:AssumeRole")
    sts = guarded.as_role("sts", may)
    trusting, closed = guarded.role(), guarded.role(trust=service)
    arns = [f"arn:aws:iam::{ACCOUNT}:role/{name}" for name in (trusting, closed)]
    assert [code(sts.assume_role, RoleArn=arn, RoleSessionName="evening") for arn in arns] == ["", "AccessDenied"]
    assert code(guarded.as_role("sts").assume_role, RoleArn=arns[0], RoleSessionName="evening") == "AccessDenied"


def test_a_role_is_handed_on_only_with_leave(guarded: Guarded) -> None:
    training = guarded.role()
    job: dict[str, Any] = {
        "TrainingJobName": "t",
        "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/{training}",
        "AlgorithmSpecification": {"TrainingInputMode": "File", "TrainingImage": "i"},
        "OutputDataConfig": {"S3OutputPath": "s3://market/"},
        "ResourceConfig": {"VolumeSizeInGB": 1, "InstanceCount": 1, "InstanceType": "ml.m5.large"},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }
    creates = allow("sagemaker:CreateTrainingJob", f"arn:aws:sagemaker:{HERE}:training-job/*")

    def passes(service: str) -> Statement:
        return allow("iam:PassRole", job["RoleArn"], StringEquals={"iam:PassedToService": [service]})

    assert code(guarded.as_role("sagemaker", creates).create_training_job, **job) == "AccessDeniedException"
    to_batch = guarded.as_role("sagemaker", creates, passes("batch.amazonaws.com"))
    assert code(to_batch.create_training_job, **job) == "AccessDeniedException"
    to_sagemaker = guarded.as_role("sagemaker", creates, passes("sagemaker.amazonaws.com"))
    assert code(to_sagemaker.create_training_job, **job) == ""


def test_a_cluster_is_started_with_two_roles_and_ended_by_its_tag(guarded: Guarded) -> None:
    iam, service, node = guarded.operator("iam"), guarded.role(), guarded.role()
    iam.create_instance_profile(InstanceProfileName="nodes")
    iam.add_role_to_instance_profile(InstanceProfileName="nodes", RoleName=node)
    roles = [f"arn:aws:iam::{ACCOUNT}:role/{name}" for name in (service, node)]
    flow = {
        "Name": "c",
        "Instances": {"KeepJobFlowAliveWhenNoSteps": True},
        "ServiceRole": service,
        "JobFlowRole": "nodes",
        "Tags": [{"Key": "phase", "Value": "serve"}],
    }
    may = [
        allow(["elasticmapreduce:RunJobFlow", "elasticmapreduce:AddTags", "iam:CreateServiceLinkedRole"]),
        allow("iam:PassRole", roles[0], StringEquals={"iam:PassedToService": "elasticmapreduce.amazonaws.com"}),
        allow("iam:PassRole", roles[1], StringLike={"iam:PassedToService": "ec2.amazonaws.com*"}),
    ]
    for missing in range(len(may)):
        emr = guarded.as_role("emr", *may[:missing], *may[missing + 1 :])
        assert code(emr.run_job_flow, **flow) == "AccessDeniedException", missing
    cluster = guarded.as_role("emr", *may).run_job_flow(**flow)["JobFlowId"]
    for phase, expected in (("train", "AccessDeniedException"), ("serve", "")):
        tag = {"aws:ResourceTag/phase": phase}
        emr = guarded.as_role("emr", allow("elasticmapreduce:TerminateJobFlows", StringEquals=tag))
        assert code(emr.terminate_job_flows, JobFlowIds=[cluster]) == expected


def test_an_encrypted_topic_needs_its_key(guarded: Guarded) -> None:
    key = guarded.operator("kms").create_key()["KeyMetadata"]["Arn"]
    topic = guarded.operator("sns").create_topic(Name="news", Attributes={"KmsMasterKeyId": key})["TopicArn"]
    publishes, uses = allow("sns:Publish", topic), allow(["kms:Decrypt", "kms:GenerateDataKey*"], key)
    said = {"TopicArn": topic, "Message": "m"}
    assert code(guarded.as_role("sns", publishes).publish, **said) == "AuthorizationError"
    assert code(guarded.as_role("sns", publishes, uses).publish, **said) == ""
    guarded.operator("kms").put_key_policy(
        KeyId=key, PolicyName="default", Policy=document({**OPEN, "Principal": {"AWS": "arn:aws:iam::1:root"}})
    )
    assert code(guarded.as_role("sns", publishes, uses).publish, **said) == "AuthorizationError"


def test_resource_policies_allow_and_deny(guarded: Guarded) -> None:
    s3, role = guarded.operator("s3"), guarded.role()
    s3.create_bucket(Bucket="shared")
    s3.put_object(Bucket="shared", Key="a", Body=b"x")
    mine = client("s3", guarded.url, guarded.credentials(role))
    grant = {
        **allow("s3:GetObject", "arn:aws:s3:::shared/*"),
        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:role/{role}"},
    }
    for statement, expected in ((grant, ""), ({**grant, "Effect": "Deny"}, "AccessDenied")):
        s3.put_bucket_policy(Bucket="shared", Policy=document(statement))
        assert code(mine.get_object, Bucket="shared", Key="a") == expected
    queue = guarded.operator("sqs").create_queue(
        QueueName="open",
        Attributes={"Policy": document({**allow("sqs:SendMessage"), "Principal": "*"})},
    )["QueueUrl"]
    sqs = guarded.as_role("sqs")
    assert code(sqs.send_message, QueueUrl=queue, MessageBody="m") == ""
    assert code(sqs.receive_message, QueueUrl=queue) == "AccessDenied"


def test_moto_still_takes_a_deny_under_a_condition_for_a_deny() -> None:
    with mock_aws():
        client("s3", "http://s3.amazonaws.com").create_bucket(Bucket="market")
        bucket = s3_backends[ACCOUNT][PARTITION].get_bucket("market")
        bucket.policy = document(*ENCRYPTED_TRANSPORT).encode()
        assert bucket.get_permission("s3:GetObject", "arn:aws:s3:::market/a") == PermissionResult.DENIED


# --- what passes through --------------------------------------------------------------------------


def test_an_upload_in_parts_arrives_whole(guarded: Guarded) -> None:
    s3 = guarded.as_role("s3", allow(["s3:PutObject", "s3:GetObject"], "arn:aws:s3:::market/big/*"))
    content = bytes(range(256)) * 36_000
    s3.upload_fileobj(io.BytesIO(content), "market", "big/a")
    assert s3.get_object(Bucket="market", Key="big/a")["Body"].read() == content
    s3.copy_object(Bucket="market", Key="big/b", CopySource="market/big/a")
    assert code(s3.copy_object, Bucket="market", Key="big/b", CopySource="market/bars/a") == "AccessDenied"


def test_a_large_upload_that_is_refused_ends_with_the_refusal(guarded: Guarded) -> None:
    assert code(guarded.as_role("s3").put_object, Bucket="market", Key="a", Body=bytes(12_000_000)) == "AccessDenied"


def test_several_objects_are_deleted_when_each_may_be(guarded: Guarded) -> None:
    for key in ("old/a", "old/b"):
        guarded.operator("s3").put_object(Bucket="market", Key=key)
    s3 = guarded.as_role("s3", allow("s3:DeleteObject", "arn:aws:s3:::market/old/*"))
    listed = [{"Key": "old/a"}, {"Key": "old/b"}]
    assert code(s3.delete_objects, Bucket="market", Delete={"Objects": [*listed, {"Key": "bars/a"}]}) == "AccessDenied"
    assert len(s3.delete_objects(Bucket="market", Delete={"Objects": listed})["Deleted"]) == 2


def test_the_operator_may_do_everything_and_is_not_recorded(guarded: Guarded) -> None:
    before = guarded.report()["calls"]
    assert guarded.operator("s3").get_object(Bucket="market", Key="bars/a")["Body"].read() == b"bars"
    assert guarded.report()["calls"] == before


def test_signed_urls_are_decided_on(guarded: Guarded) -> None:
    role = guarded.role(allow("s3:GetObject", "arn:aws:s3:::market/bars/*"))
    for version in ("s3", "s3v4"):
        s3 = client("s3", guarded.url, guarded.credentials(role), Config(signature_version=version))
        urls = [
            s3.generate_presigned_url("get_object", Params={"Bucket": "market", "Key": key}) for key in ("bars/a", "x")
        ]
        assert fetch(urls[0]) == (200, b"bars")
        assert fetch(urls[1])[0] == 403


def test_paths_that_are_no_services_are_open(guarded: Guarded) -> None:
    assert fetch(f"{guarded.url}/moto-api/config")[0] < 300


# --- who calls ------------------------------------------------------------------------------------

SERVICES: Sequence[tuple[str, str, dict[str, Any], str, str]] = [
    # service, call, refused, unknown key: one of each protocol, and those with codes of their own
    ("s3", "list_buckets", {}, "AccessDenied", "InvalidAccessKeyId"),
    ("sts", "assume_role", {"RoleArn": "x" * 20, "RoleSessionName": "xx"}, "AccessDenied", "InvalidClientTokenId"),
    ("autoscaling", "describe_auto_scaling_groups", {}, "AccessDenied", "InvalidClientTokenId"),
    ("sns", "list_topics", {}, "AuthorizationError", "InvalidClientTokenId"),
    ("ec2", "describe_instances", {}, "UnauthorizedOperation", "AuthFailure"),
    ("stepfunctions", "list_state_machines", {}, "AccessDeniedException", "UnrecognizedClientException"),
    ("sqs", "list_queues", {}, "AccessDenied", "InvalidClientTokenId"),
    ("cloudwatch", "list_metrics", {}, "AccessDenied", "InvalidClientTokenId"),
    ("batch", "list_jobs", {"jobQueue": "q"}, "AccessDeniedException", "UnrecognizedClientException"),
    ("lambda", "invoke", {"FunctionName": "f"}, "AccessDeniedException", "UnrecognizedClientException"),
]


@pytest.mark.parametrize(("service", "call", "parameters", "refused", "unknown"), SERVICES)
def test_each_service_refuses_as_on_aws(
    guarded: Guarded, service: str, call: str, parameters: dict[str, Any], refused: str, unknown: str
) -> None:
    assert code(getattr(guarded.as_role(service), call), **parameters) == refused
    nobody = client(service, guarded.url, Credentials("ASIANOBODY", "secret", "token"))
    assert code(getattr(nobody, call), **parameters) == unknown


def test_a_key_counts_with_its_own_token_only(guarded: Guarded) -> None:
    mine, other = (guarded.credentials(guarded.role(OPEN)) for _ in range(2))
    mixed = Credentials(mine.key_id, mine.secret, other.token)
    assert code(client("s3", guarded.url, mixed).list_buckets) == "InvalidAccessKeyId"
    assert code(client("s3", guarded.url, mine).list_buckets) == ""


def test_nobody_gets_in_without_a_signature(guarded: Guarded) -> None:
    unsigned = Config(signature_version=UNSIGNED)
    assert code(client("s3", guarded.url, config=unsigned).get_object, Bucket="market", Key="bars/a") == "AccessDenied"
    assert code(client("sqs", guarded.url, config=unsigned).list_queues) == "MissingAuthenticationTokenException"


def test_who_somebody_is_may_always_be_asked(guarded: Guarded) -> None:
    role = guarded.role({"Effect": "Deny", "Action": "*", "Resource": "*"})
    sts = client("sts", guarded.url, guarded.credentials(role))
    assert sts.get_caller_identity()["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/evening"
