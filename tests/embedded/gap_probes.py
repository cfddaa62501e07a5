"""Questions about deployed resources that plain moto answers wrongly, or not at all, and AWS rightly."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class At(NamedTuple):
    """Where a question is asked.

    client: by service; ids: physical ones by logical id; output: the attribute that the probe is about.
    """

    client: Callable[[str], Any]
    stack: str
    ids: Mapping[str, str]
    output: str

    def __call__(self, service: str) -> Any:
        return self.client(service)


class Probe(NamedTuple):
    """One thing that plain moto loses. ask: gets the physical id; attribute: of the resource, in `At.output`."""

    rule: str
    lost: str
    resource: str
    ask: Callable[[At, str], Any]
    want: Any = True
    attribute: str = ""

    @property
    def key(self) -> str:
        """As an output's key, and for humans."""
        return "".join(filter(str.isalnum, f"{self.rule} {self.lost}".title()))


def _environment(at: At, it: str) -> Any:
    return at("batch").describe_compute_environments(computeEnvironments=[it])["computeEnvironments"][0]


def _job(at: At, it: str) -> Any:
    return at("batch").describe_job_definitions(jobDefinitions=[it])["jobDefinitions"][0]


def _function(at: At, it: str) -> Any:
    return at("lambda").get_function_configuration(FunctionName=it)


def _tags_of_function(at: At, it: str) -> Any:
    return at("lambda").get_function(FunctionName=it)["Tags"]


def _invocations(at: At) -> Any:
    return at("lambda").get_function_event_invoke_config(FunctionName=at.ids["Function"])


def _topic(at: At) -> Any:
    return at("sns").get_topic_attributes(TopicArn=at.ids["Topic"])["Attributes"]


def _subscriptions(at: At) -> Any:
    return at("sns").list_subscriptions_by_topic(TopicArn=at.ids["Topic"])["Subscriptions"]


def _queue(at: At) -> Any:
    return at("sqs").get_queue_attributes(QueueUrl=at.ids["Messages"], AttributeNames=["All"])["Attributes"]


def _group(at: At, it: str) -> Any:
    return at("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[it])["AutoScalingGroups"][0]


def _cluster(at: At, it: str) -> Any:
    return at("emr").describe_cluster(ClusterId=it)["Cluster"]


def _egress(at: At, it: str) -> Any:
    (group,) = at("ec2").describe_security_groups(GroupIds=[it])["SecurityGroups"]
    return [(rule["IpProtocol"], rule.get("ToPort")) for rule in group["IpPermissionsEgress"]]


def _teams(at: At, it: str) -> Any:
    tags = at("ec2").describe_tags(Filters=[{"Name": "resource-id", "Values": [it]}])["Tags"]
    return [tag["Value"] for tag in tags if tag["Key"] == "team"]


def _stack(at: At) -> Any:
    return at("cloudformation").describe_stacks(StackName=at.stack)["Stacks"][0]


PROBES = (
    Probe("s3-bucket", "cors", "Bucket", lambda at, it: len(at("s3").get_bucket_cors(Bucket=it)["CORSRules"]), 1),
    Probe(
        *("s3-bucket", "lifecycle", "Bucket"),
        lambda at, it: at("s3").get_bucket_lifecycle_configuration(Bucket=it)["Rules"],
        [{"Expiration": {"Days": 7}, "Filter": {"Prefix": "ticks/"}, "Status": "Enabled"}],
    ),
    Probe(
        *("s3-bucket", "logging", "Bucket"),
        lambda at, it: at("s3").get_bucket_logging(Bucket=it)["LoggingEnabled"]["TargetPrefix"],
        "access/",
    ),
    Probe(
        *("s3-bucket", "ownership", "Bucket"),
        lambda at, it: at("s3").get_bucket_ownership_controls(Bucket=it)["OwnershipControls"]["Rules"],
        [{"ObjectOwnership": "BucketOwnerEnforced"}],
    ),
    Probe(
        *("s3-bucket", "public access", "Bucket"),
        lambda at, it: at("s3").get_public_access_block(Bucket=it)["PublicAccessBlockConfiguration"][
            "BlockPublicPolicy"
        ],
    ),
    Probe(
        *("s3-bucket", "versioning", "Bucket"),
        lambda at, it: at("s3").get_bucket_versioning(Bucket=it).get("Status"),
        "Enabled",
    ),
    Probe(
        *("s3-bucket-policy", "all", "BucketPolicy"),
        lambda at, it: json.loads(at("s3").get_bucket_policy(Bucket=it)["Policy"])["Statement"][0]["Effect"],
        "Allow",
    ),
    Probe(
        *("glue-database", "all", "Database"),
        lambda at, it: at("glue").get_database(Name=it)["Database"]["Name"],
        "market",
    ),
    Probe(
        *("glue-table", "all", "Table"),
        lambda at, it: at("glue").get_table(DatabaseName="market", Name=it)["Table"]["Name"],
        "bars",
    ),
    Probe(
        *("athena-work-group", "all", "WorkGroup"),
        lambda at, it: at("athena").get_work_group(WorkGroup=it)["WorkGroup"]["Name"],
        "readers",
    ),
    Probe(
        *("athena-named-query", "all", "Query"),
        lambda at, it: at("athena").get_named_query(NamedQueryId=it)["NamedQuery"]["QueryString"],
        "SELECT 1",
    ),
    Probe(
        *("batch-compute-environment", "type in small letters", "Environment"),
        lambda at, it: _environment(at, it)["type"],
        "UNMANAGED",
    ),
    Probe(
        *("batch-compute-environment", "tags", "ManagedEnvironment"),
        lambda at, it: _environment(at, it)["tags"],
        {"team": "desk"},
    ),
    Probe(
        *("batch-compute-environment", "attribute", "ManagedEnvironment"),
        lambda at, it: at.output == it,
        attribute="ComputeEnvironmentArn",
    ),
    Probe(
        *("batch-job-queue", "tags", "Queue"),
        lambda at, it: at("batch").describe_job_queues(jobQueues=[it])["jobQueues"][0]["tags"],
        {"team": "desk"},
    ),
    Probe("batch-job-queue", "attribute", "Queue", lambda at, it: at.output == it, attribute="JobQueueArn"),
    Probe("batch-job-definition", "keys", "Job", lambda at, it: _job(at, it)["parameters"], {"Ticker": "AAPL"}),
    Probe("batch-job-definition", "platform", "Job", lambda at, it: _job(at, it)["platformCapabilities"], ["EC2"]),
    Probe("batch-job-definition", "tags", "Job", lambda at, it: _job(at, it)["propagateTags"]),
    Probe(
        *("batch-job-definition", "timeout", "Job"),
        lambda at, it: _job(at, it)["timeout"],
        {"attemptDurationSeconds": 60},
    ),
    Probe(
        *("lambda-function", "architecture", "Function"),
        lambda at, it: _function(at, it)["Architectures"],
        ["arm64"],
    ),
    Probe("lambda-function", "tags", "Function", _tags_of_function, {"team": "desk"}),
    Probe(
        *("lambda-function", "tracing", "Function"),
        lambda at, it: _function(at, it)["TracingConfig"]["Mode"],
        "Active",
    ),
    Probe(
        *("lambda-logging-config", "all", "Function"),
        lambda at, it: "-LogGroup-" in _function(at, it)["LoggingConfig"]["LogGroup"],
    ),
    Probe(
        "lambda-event-invoke-config", "all", "Invocations", lambda at, it: _invocations(at)["MaximumRetryAttempts"], 1
    ),
    Probe(
        *("states-state-machine", "where executions are carried out", "Machine"),
        lambda at, it: at("stepfunctions").describe_state_machine(stateMachineArn=it)["tracingConfiguration"],
        {"enabled": True},
    ),
    Probe("states-state-machine", "attribute", "Machine", lambda at, it: at.output == it, attribute="Arn"),
    Probe(
        *("scheduler-schedule", "all", "Schedule"),
        lambda at, it: at("scheduler").get_schedule(Name=it)["ScheduleExpression"],
        "rate(1 day)",
    ),
    Probe(
        *("iam-role", "policies of AWS", "RoleWithPolicies"),
        lambda at, it: at("iam").list_attached_role_policies(RoleName=it)["AttachedPolicies"][0]["PolicyName"],
        "AWSBatchServiceRole",
    ),
    Probe(
        *("iam-role", "inline policies", "RoleWithPolicies"),
        lambda at, it: at("iam").get_role_policy(RoleName=it, PolicyName="all")["PolicyDocument"]["Version"],
        "2012-10-17",
    ),
    Probe(
        *("kms-key", "tags", "Key"),
        lambda at, it: at("kms").list_resource_tags(KeyId=it)["Tags"],
        [{"TagKey": "team", "TagValue": "desk"}],
    ),
    Probe(
        *("sns-topic", "tags", "Topic"),
        lambda at, it: at("sns").list_tags_for_resource(ResourceArn=it)["Tags"],
        [{"Key": "team", "Value": "desk"}],
    ),
    Probe("sns-topic", "attribute", "Topic", lambda at, it: at.output == it, attribute="TopicArn"),
    Probe(
        *("sns-topic-policy", "all", "TopicPolicy"),
        lambda at, it: json.loads(_topic(at)["Policy"])["Statement"][0]["Action"],
        "*",
    ),
    Probe(
        *("sns-subscription", "all", "Subscription"),
        lambda at, it: _subscriptions(at)[0]["Endpoint"],
        "desk@example.org",
    ),
    Probe("sqs-queue-policy", "all", "MessagesPolicy", lambda at, it: "Policy" in _queue(at)),
    Probe(
        *("cloudwatch-alarm", "all", "Alarm"),
        lambda at, it: at("cloudwatch").describe_alarms(AlarmNames=[it])["MetricAlarms"][0]["Threshold"],
        1.0,
    ),
    Probe("cloudwatch-dashboard", "name", "Dashboard", lambda at, it: it.partition("-Dashboard-")[0], "gaps"),
    Probe("logs-log-group", "attribute", "LogGroup", lambda at, it: at.output[-2:], ":*", attribute="Arn"),
    Probe("autoscaling-group", "metrics", "Fleet", lambda at, it: len(_group(at, it)["EnabledMetrics"]), 8),
    Probe(
        "emr-cluster", "applications", "Cluster", lambda at, it: _cluster(at, it)["Applications"][0]["Name"], "Spark"
    ),
    Probe(
        *("emr-cluster", "configurations", "Cluster"),
        lambda at, it: _cluster(at, it)["Configurations"],
        [{"Classification": "spark", "Properties": {"a": "b"}}],
    ),
    Probe(
        *("emr-cluster", "instance groups", "Cluster"),
        lambda at, it: {
            group["InstanceGroupType"]: group["RequestedInstanceCount"]
            for group in at("emr").list_instance_groups(ClusterId=it)["InstanceGroups"]
        },
        {"MASTER": 1, "CORE": 2},
    ),
    Probe(
        *("emr-cluster", "security configuration", "Cluster"),
        lambda at, it: _cluster(at, it)["SecurityConfiguration"],
        "strict",
    ),
    Probe(
        *("emr-security-configuration", "content", "Security"),
        lambda at, it: json.loads(at("emr").describe_security_configuration(Name=it)["SecurityConfiguration"]),
        {"EncryptionConfiguration": {}},
    ),
    Probe(
        *("ec2-vpc", "DNS", "Vpc"),
        lambda at, it: at("ec2").describe_vpc_attribute(VpcId=it, Attribute="enableDnsHostnames")["EnableDnsHostnames"],
        {"Value": True},
    ),
    Probe(
        *("ec2-subnet", "public addresses", "Subnet"),
        lambda at, it: at("ec2").describe_subnets(SubnetIds=[it])["Subnets"][0]["MapPublicIpOnLaunch"],
    ),
    Probe("ec2-security-group", "egress", "Group", _egress, [("tcp", 443)]),
    Probe("ec2-internet-gateway", "tags", "Gateway", _teams, ["desk"]),
    Probe("ec2-route-table", "tags", "Routes", _teams, ["desk"]),
    Probe("ec2-vpc-endpoint", "tags", "Endpoint", _teams, ["desk"]),
    Probe(
        *("ec2-route-table-association", "all", "Association"),
        lambda at, it: (
            [
                table["RouteTableId"]
                for table in at("ec2").describe_route_tables()["RouteTables"]
                for found in table["Associations"]
                if found["RouteTableAssociationId"] == it
            ]
            != []
        ),
    ),
    Probe("custom-aws-call", "answer", "Call", lambda at, it: at.output, "Enabled", attribute="Status"),
    Probe("custom-s3-auto-delete", "end", "Emptied", lambda at, it: _stack(at)["StackStatus"], "CREATE_COMPLETE"),
    Probe("cdk-metadata", "all", "Metadata", lambda at, it: it, "Metadata"),
)
