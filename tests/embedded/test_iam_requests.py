"""What requests ask IAM for: real calls of boto3, read as the guard reads them."""

from __future__ import annotations

import gzip
import io
from typing import Any

import pytest
from botocore.config import Config

from embedded.aws.account import ACCOUNT, REGION, client
from embedded.aws.iam.requests import checks
from embedded.aws.iam.roles import Roles
from embedded.aws.iam.wire import read_operation, read_signature
from tests.embedded.iam_requests import ENDPOINT, HERE, ROLE, WORKER, asked, asked_for, environ_of, operation_of

BARS = "arn:aws:s3:::market/bars/a"


@pytest.mark.parametrize(
    ("method", "parameters", "expected"),
    [
        ("get_object", {"Key": "bars/a"}, [("s3:GetObject", BARS)]),
        ("head_object", {"Key": "bars/a"}, [("s3:GetObject", BARS)]),
        ("get_object", {"Key": "bars/a", "VersionId": "1"}, [("s3:GetObjectVersion", BARS)]),
        ("put_object", {"Key": "bars/a", "Body": b"x"}, [("s3:PutObject", BARS)]),
        ("create_multipart_upload", {"Key": "bars/a"}, [("s3:PutObject", BARS)]),
        ("upload_part", {"Key": "bars/a", "UploadId": "u", "PartNumber": 1, "Body": b"x"}, [("s3:PutObject", BARS)]),
        ("complete_multipart_upload", {"Key": "bars/a", "UploadId": "u"}, [("s3:PutObject", BARS)]),
        ("abort_multipart_upload", {"Key": "bars/a", "UploadId": "u"}, [("s3:AbortMultipartUpload", BARS)]),
        ("list_parts", {"Key": "bars/a", "UploadId": "u"}, [("s3:ListMultipartUploadParts", BARS)]),
        ("delete_object", {"Key": "bars/a"}, [("s3:DeleteObject", BARS)]),
        ("get_object_tagging", {"Key": "bars/a"}, [("s3:GetObjectTagging", BARS)]),
        ("list_objects", {"Prefix": "bars/"}, [("s3:ListBucket", "arn:aws:s3:::market")]),
        ("list_objects_v2", {"Prefix": "bars/"}, [("s3:ListBucket", "arn:aws:s3:::market")]),
        ("list_object_versions", {}, [("s3:ListBucketVersions", "arn:aws:s3:::market")]),
        ("list_multipart_uploads", {}, [("s3:ListBucketMultipartUploads", "arn:aws:s3:::market")]),
        ("head_bucket", {}, [("s3:ListBucket", "arn:aws:s3:::market")]),
        ("get_bucket_location", {}, [("s3:GetBucketLocation", "arn:aws:s3:::market")]),
        ("get_bucket_encryption", {}, [("s3:GetEncryptionConfiguration", "arn:aws:s3:::market")]),
        ("delete_bucket_tagging", {}, [("s3:PutBucketTagging", "arn:aws:s3:::market")]),
        (
            "copy_object",
            {"Key": "bars/b", "CopySource": {"Bucket": "other", "Key": "x y"}},
            [("s3:PutObject", "arn:aws:s3:::market/bars/b"), ("s3:GetObject", "arn:aws:s3:::other/x y")],
        ),
        (
            "delete_objects",
            {"Delete": {"Objects": [{"Key": "bars/a"}, {"Key": "<&>", "VersionId": "1"}]}},
            [("s3:DeleteObject", BARS), ("s3:DeleteObjectVersion", "arn:aws:s3:::market/<&>")],
        ),
        (
            "put_object",
            {"Key": "bars/a", "Tagging": "k=v", "ACL": "private"},
            [("s3:PutObject", BARS), ("s3:PutObjectTagging", BARS), ("s3:PutObjectAcl", BARS)],
        ),
        (
            "put_object",
            {"Key": "bars/a", "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "1b0c"},
            [("s3:PutObject", BARS), ("kms:GenerateDataKey", f"arn:aws:kms:{HERE}:key/1b0c")],
        ),
    ],
)
def test_calls_of_s3_ask_for_actions_on_objects_and_on_buckets(
    method: str, parameters: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert asked_for("s3", method, Bucket="market", **parameters) == expected


def test_listing_buckets_is_about_no_bucket() -> None:
    assert asked_for("s3", "list_buckets") == [("s3:ListAllMyBuckets", "*")]


def test_keys_are_read_as_they_were_written() -> None:
    key = "bars/d=2026-11-20/é +%2F//a?b&c#d "
    assert asked_for("s3", "get_object", Bucket="market", Key=key) == [("s3:GetObject", f"arn:aws:s3:::market/{key}")]


def test_a_bucket_in_the_host_name_is_the_bucket() -> None:
    environ = environ_of("s3", "get_object", Bucket="market", Key="bars/a")
    place = {"HTTP_HOST": "market.s3.amazonaws.com", "PATH_INFO": "/bars/a", "RAW_URI": "/bars/a"}
    operation = operation_of(environ | place)
    assert operation is not None
    assert [check.resource for check in checks(operation, Roles())] == [BARS]


def test_a_listing_tells_its_prefix() -> None:
    (check,) = asked("s3", "list_objects_v2", Bucket="market", Prefix="bars/", Delimiter="/")
    assert check.values.items() >= {"s3:prefix": "bars/", "s3:delimiter": "/"}.items()


def test_the_body_of_an_upload_is_not_read() -> None:
    environ = environ_of("s3", "put_object", Bucket="market", Key="bars/a", Body=b"x" * 10)
    stream = environ["wsgi.input"]
    assert operation_of(environ) is not None
    assert environ["wsgi.input"] is stream
    assert stream.tell() == 0


@pytest.mark.parametrize(
    ("service", "method", "parameters"),
    [
        ("s3", "delete_objects", {"Bucket": "market", "Delete": {"Objects": [{"Key": "a"}]}}),
        ("batch", "submit_job", {"jobName": "n", "jobQueue": "q", "jobDefinition": "d"}),
        ("logs", "create_log_group", {"logGroupName": "g"}),
        ("sns", "publish", {"TopicArn": f"arn:aws:sns:{HERE}:t", "Message": "é"}),
    ],
)
def test_a_body_that_was_read_can_be_read_again(service: str, method: str, parameters: dict[str, Any]) -> None:
    environ = environ_of(service, method, **parameters)
    whole = environ["wsgi.input"].getvalue()
    assert operation_of(environ) is not None
    assert whole
    assert environ["wsgi.input"].read() == whole


def test_a_chunked_body_is_read_to_its_end() -> None:
    environ = environ_of("logs", "create_log_group", logGroupName="g")
    del environ["CONTENT_LENGTH"]
    environ["wsgi.input_terminated"] = True
    operation = operation_of(environ)
    assert operation is not None
    assert operation.parameters == {"logGroupName": "g"}


def test_a_packed_body_is_unpacked_for_reading_and_handed_on_packed() -> None:
    environ = environ_of("logs", "create_log_group", logGroupName="g")
    packed = gzip.compress(environ["wsgi.input"].read())
    environ |= {"wsgi.input": io.BytesIO(packed), "CONTENT_LENGTH": str(len(packed)), "HTTP_CONTENT_ENCODING": "gzip"}
    operation = operation_of(environ)
    assert operation is not None
    assert operation.parameters == {"logGroupName": "g"}
    assert environ["wsgi.input"].read() == packed


JOB_FLOW = {
    "Name": "c",
    "Instances": {},
    "ServiceRole": "emr",
    "Tags": [{"Key": "phase", "Value": "serve"}],
    "AutoTerminationPolicy": {"IdleTimeout": 60},
}
TRAINING_JOB = {
    "TrainingJobName": "t",
    "RoleArn": ROLE,
    "AlgorithmSpecification": {"TrainingInputMode": "File"},
    "OutputDataConfig": {"S3OutputPath": "s3://b"},
    "ResourceConfig": {"VolumeSizeInGB": 1},
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    "Tags": [{"Key": "phase", "Value": "train"}],
}


@pytest.mark.parametrize(
    ("service", "method", "parameters", "expected"),
    [
        (
            "batch",
            "submit_job",
            {"jobName": "n", "jobQueue": f"arn:aws:batch:{HERE}:job-queue/q", "jobDefinition": "d:2"},
            [
                ("batch:SubmitJob", f"arn:aws:batch:{HERE}:job-definition/d:2"),
                ("batch:SubmitJob", f"arn:aws:batch:{HERE}:job-queue/q"),
            ],
        ),
        (
            "batch",
            "terminate_job",
            {"jobId": "1f0c", "reason": "r"},
            [("batch:TerminateJob", f"arn:aws:batch:{HERE}:job/1f0c")],
        ),
        ("batch", "describe_jobs", {"jobs": ["1f0c"]}, [("batch:DescribeJobs", "*")]),
        (
            "sagemaker",
            "create_training_job",
            TRAINING_JOB,
            [
                ("sagemaker:CreateTrainingJob", f"arn:aws:sagemaker:{HERE}:training-job/t"),
                ("iam:PassRole", ROLE),
                ("sagemaker:AddTags", f"arn:aws:sagemaker:{HERE}:training-job/t"),
            ],
        ),
        (
            "emr",
            "run_job_flow",
            JOB_FLOW,
            [
                ("elasticmapreduce:RunJobFlow", "*"),
                ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/emr"),
                ("elasticmapreduce:AddTags", f"arn:aws:elasticmapreduce:{HERE}:cluster/*"),
                ("elasticmapreduce:PutAutoTerminationPolicy", f"arn:aws:elasticmapreduce:{HERE}:cluster/*"),
                (
                    "iam:CreateServiceLinkedRole",
                    f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/elasticmapreduce.amazonaws.com/"
                    "AWSServiceRoleForEMRCleanup",
                ),
            ],
        ),
        (
            "emr",
            "terminate_job_flows",
            {"JobFlowIds": ["j-1", "j-2"]},
            [
                ("elasticmapreduce:TerminateJobFlows", f"arn:aws:elasticmapreduce:{HERE}:cluster/{cluster}")
                for cluster in ("j-1", "j-2")
            ],
        ),
        (
            "lambda",
            "invoke",
            {"FunctionName": f"arn:aws:lambda:{HERE}:function:f", "Qualifier": "live"},
            [("lambda:InvokeFunction", f"arn:aws:lambda:{HERE}:function:f:live")],
        ),
        ("lambda", "invoke", {"FunctionName": "f"}, [("lambda:InvokeFunction", f"arn:aws:lambda:{HERE}:function:f")]),
        (
            "stepfunctions",
            "start_execution",
            {"stateMachineArn": f"arn:aws:states:{HERE}:stateMachine:m"},
            [("states:StartExecution", f"arn:aws:states:{HERE}:stateMachine:m")],
        ),
        (
            "logs",
            "put_log_events",
            {"logGroupName": "g", "logStreamName": "s", "logEvents": [{"timestamp": 1, "message": "m"}]},
            [("logs:PutLogEvents", f"arn:aws:logs:{HERE}:log-group:g:log-stream:s")],
        ),
        (
            "logs",
            "create_log_group",
            {"logGroupName": "g"},
            [("logs:CreateLogGroup", f"arn:aws:logs:{HERE}:log-group:g:log-stream:")],
        ),
        (
            "sqs",
            "send_message_batch",
            {"QueueUrl": f"http://127.0.0.1/{ACCOUNT}/q", "Entries": [{"Id": "1", "MessageBody": "m"}]},
            [("sqs:SendMessage", f"arn:aws:sqs:{HERE}:q")],
        ),
        (
            "autoscaling",
            "set_desired_capacity",
            {"AutoScalingGroupName": "g", "DesiredCapacity": 1},
            [
                (
                    "autoscaling:SetDesiredCapacity",
                    f"arn:aws:autoscaling:{HERE}:autoScalingGroup:*:autoScalingGroupName/g",
                )
            ],
        ),
        (
            "events",
            "put_targets",
            {"Rule": "r", "Targets": [{"Id": "1", "Arn": "arn:aws:sqs:::q", "RoleArn": ROLE}]},
            [("events:PutTargets", f"arn:aws:events:{HERE}:rule/r"), ("iam:PassRole", ROLE)],
        ),
        (
            "glue",
            "get_table",
            {"DatabaseName": "d", "Name": "t"},
            [("glue:GetTable", f"arn:aws:glue:{HERE}:{name}") for name in ("catalog", "database/d", "table/d/t")],
        ),
        (
            "athena",
            "start_query_execution",
            {"QueryString": "select 1"},
            [("athena:StartQueryExecution", f"arn:aws:athena:{HERE}:workgroup/primary")],
        ),
        ("sts", "assume_role", {"RoleArn": ROLE, "RoleSessionName": "evening"}, [("sts:AssumeRole", ROLE)]),
        ("sts", "get_caller_identity", {}, []),
        ("ecr", "get_authorization_token", {}, [("ecr:GetAuthorizationToken", "*")]),
        ("xray", "put_trace_segments", {"TraceSegmentDocuments": ["{}"]}, [("xray:PutTraceSegments", "*")]),
        ("dynamodb", "get_item", {"TableName": "t", "Key": {}}, [("dynamodb:GetItem", "*")]),
    ],
)
def test_calls_ask_for_all_that_they_need(
    service: str, method: str, parameters: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert asked_for(service, method, **parameters) == expected


def test_a_role_that_is_handed_on_is_asked_for_with_the_service_that_gets_it() -> None:
    _, passed, _ = asked("sagemaker", "create_training_job", **TRAINING_JOB)
    assert passed.values["iam:PassedToService"] == "sagemaker.amazonaws.com"


def test_tags_of_a_request_are_in_the_context_of_all_that_it_asks_for() -> None:
    for check in asked("emr", "run_job_flow", **JOB_FLOW):
        assert check.values["aws:RequestTag/phase"] == "serve"
        assert check.values["aws:TagKeys"] == ["phase"]


def test_keys_of_tags_that_are_taken_away_are_in_the_context() -> None:
    (check,) = asked("emr", "remove_tags", ResourceId="j-1", TagKeys=["phase"])
    assert check.values == {"aws:TagKeys": ["phase"]}


def test_metrics_tell_their_namespace_in_each_protocol_of_cloudwatch() -> None:
    (check,) = asked("cloudwatch", "put_metric_data", Namespace="N", MetricData=[{"MetricName": "m", "Value": 1}])
    assert (check.action, check.resource, check.values) == (
        "cloudwatch:PutMetricData",
        "*",
        {"cloudwatch:namespace": "N"},
    )
    environ = environ_of("cloudwatch", "list_metrics")
    body = b"\xa1\x69Namespace\x61N"  # {"Namespace": "N"}
    environ |= {
        "PATH_INFO": "/service/GraniteServiceVersion20100801/operation/PutMetricData",
        "HTTP_SMITHY_PROTOCOL": "rpc-v2-cbor",
        "wsgi.input": io.BytesIO(body),
        "CONTENT_LENGTH": str(len(body)),
    }
    operation = operation_of(environ)
    assert operation is not None
    assert checks(operation, Roles()) == [check]


def test_who_signs_a_url_is_told_by_it() -> None:
    for version in ("s3", "s3v4"):
        s3 = client("s3", ENDPOINT, WORKER, Config(signature_version=version))
        url = s3.generate_presigned_url("get_object", Params={"Bucket": "market", "Key": "bars/a"})
        path, _, query = url.removeprefix(ENDPOINT).partition("?")
        environ = environ_of("s3", "head_bucket", Bucket="market")
        del environ["HTTP_AUTHORIZATION"], environ["HTTP_X_AMZ_SECURITY_TOKEN"]
        environ |= {"REQUEST_METHOD": "GET", "PATH_INFO": path, "RAW_URI": f"{path}?{query}", "QUERY_STRING": query}
        signature = read_signature(environ)
        assert signature is not None
        assert (signature.key_id, signature.region, signature.service, signature.token) == (
            "ASIAWORKER",
            REGION,
            "s3",
            "token",
        )
        operation = read_operation(environ, signature)
        assert operation is not None
        assert (operation.name, operation.parameters["Key"]) == ("GetObject", "bars/a")


def test_an_unsigned_request_is_nobodys() -> None:
    assert read_signature({"PATH_INFO": "/market/bars/a", "QUERY_STRING": ""}) is None


def test_a_request_that_no_service_knows_is_no_operation() -> None:
    environ = environ_of("batch", "describe_jobs", jobs=["1"])
    assert operation_of(environ | {"PATH_INFO": "/v1/nothing", "RAW_URI": "/v1/nothing"}) is None
    environ["HTTP_AUTHORIZATION"] = environ["HTTP_AUTHORIZATION"].replace("/batch/", "/nothing/")
    assert operation_of(environ) is None
