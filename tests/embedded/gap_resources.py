"""A template with a resource of each type that a rule is for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from embedded.aws.account import ACCOUNT

_TAGS = [{"Key": "team", "Value": "desk"}]
_POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
_EGRESS = [{"CidrIp": "0.0.0.0/0", "IpProtocol": "tcp", "FromPort": 443, "ToPort": 443}]
_BATCH_POLICY = "arn:aws:iam::aws:policy/service-role/AWSBatchServiceRole"
_CALL = (
    '{"service": "S3", "action": "GetBucketVersioning", "parameters": {"Bucket": "',
    {"Ref": "Bucket"},
    '"}, "physicalResourceId": {"id": "versioning"}, "outputPaths": ["Status"]}',
)


def _trust(*services: str) -> dict[str, Any]:
    principal = {"Service": [f"{service}.amazonaws.com" for service in services]}
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal}],
    }


def _resource(kind: str, **properties: Any) -> dict[str, Any]:
    return {"Type": kind, "Properties": properties}


def _arn(name: str) -> dict[str, Any]:
    return {"Fn::GetAtt": [name, "Arn"]}


def _instances(count: int) -> dict[str, Any]:
    return {"InstanceCount": count, "InstanceType": "m5.xlarge", "Market": "ON_DEMAND"}


CODE = ("code", "code.zip")
"""Bucket and key of the function's code."""
RESOURCES: Mapping[str, Mapping[str, Any]] = {
    "Role": _resource("AWS::IAM::Role", AssumeRolePolicyDocument=_trust("lambda", "batch", "states")),
    "RoleWithPolicies": _resource(
        "AWS::IAM::Role",
        AssumeRolePolicyDocument=_trust("batch"),
        ManagedPolicyArns=[_BATCH_POLICY],
        Policies=[{"PolicyName": "all", "PolicyDocument": _POLICY}],
    ),
    "Logs": _resource("AWS::S3::Bucket"),
    "Bucket": _resource(
        "AWS::S3::Bucket",
        CorsConfiguration={"CorsRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]},
        LifecycleConfiguration={"Rules": [{"ExpirationInDays": 7, "Prefix": "ticks/", "Status": "Enabled"}]},
        LoggingConfiguration={"DestinationBucketName": {"Ref": "Logs"}, "LogFilePrefix": "access/"},
        OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        PublicAccessBlockConfiguration={"BlockPublicPolicy": True},
        VersioningConfiguration={"Status": "Enabled"},
    ),
    "BucketPolicy": _resource("AWS::S3::BucketPolicy", Bucket={"Ref": "Logs"}, PolicyDocument=_POLICY),
    "Database": _resource("AWS::Glue::Database", CatalogId=ACCOUNT, DatabaseInput={"Name": "market"}),
    "Table": _resource("AWS::Glue::Table", CatalogId=ACCOUNT, DatabaseName="market", TableInput={"Name": "bars"})
    | {"DependsOn": "Database"},
    "WorkGroup": _resource("AWS::Athena::WorkGroup", Name="readers", RecursiveDeleteOption=True),
    "Query": _resource("AWS::Athena::NamedQuery", Database="market", Name="newest", QueryString="SELECT 1"),
    "Environment": _resource(
        "AWS::Batch::ComputeEnvironment", Type="unmanaged", ServiceRole=_arn("Role"), Tags={"team": "desk"}
    ),
    "ManagedEnvironment": _resource(
        "AWS::Batch::ComputeEnvironment",
        Type="MANAGED",
        ServiceRole=_arn("Role"),
        ComputeResources={
            "Type": "FARGATE",
            "MaxvCpus": 1,
            "Subnets": [{"Ref": "Subnet"}],
            "SecurityGroupIds": [{"Ref": "Group"}],
        },
        Tags={"team": "desk"},
    ),
    "Queue": _resource(
        "AWS::Batch::JobQueue",
        Priority=1,
        ComputeEnvironmentOrder=[{"ComputeEnvironment": {"Ref": "ManagedEnvironment"}, "Order": 1}],
        Tags={"team": "desk"},
    ),
    "Job": _resource(
        "AWS::Batch::JobDefinition",
        Type="container",
        ContainerProperties={
            "Image": "x",
            "ResourceRequirements": [{"Type": "MEMORY", "Value": "8"}, {"Type": "VCPU", "Value": "1"}],
        },
        Parameters={"Ticker": "AAPL"},
        PlatformCapabilities=["EC2"],
        PropagateTags=True,
        RetryStrategy={"Attempts": 2},
        Timeout={"AttemptDurationSeconds": 60},
    ),
    "Function": _resource(
        "AWS::Lambda::Function",
        Architectures=["arm64"],
        Code={"S3Bucket": CODE[0], "S3Key": CODE[1]},
        Handler="one.handler",
        LoggingConfig={"LogGroup": {"Ref": "LogGroup"}},
        Role=_arn("Role"),
        Runtime="python3.12",
        Tags=_TAGS,
        TracingConfig={"Mode": "Active"},
    ),
    "Invocations": _resource(
        "AWS::Lambda::EventInvokeConfig",
        FunctionName={"Ref": "Function"},
        MaximumRetryAttempts=1,
        Qualifier="$LATEST",
    ),
    "LogGroup": _resource("AWS::Logs::LogGroup", RetentionInDays=7),
    "Machine": _resource(
        "AWS::StepFunctions::StateMachine",
        DefinitionString='{"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}',
        RoleArn=_arn("Role"),
        TracingConfiguration={"Enabled": True},
    ),
    "Schedule": _resource(
        "AWS::Scheduler::Schedule",
        FlexibleTimeWindow={"Mode": "OFF"},
        ScheduleExpression="rate(1 day)",
        Target={"Arn": "arn:aws:states:us-east-1:123456789012:stateMachine:m", "RoleArn": _arn("Role")},
    ),
    "Key": _resource("AWS::KMS::Key", KeyPolicy=_POLICY, EnableKeyRotation=True, Tags=_TAGS),
    "Topic": _resource("AWS::SNS::Topic", Tags=_TAGS),
    "TopicPolicy": _resource("AWS::SNS::TopicPolicy", Topics=[{"Ref": "Topic"}], PolicyDocument=_POLICY),
    "Subscription": _resource(
        "AWS::SNS::Subscription", TopicArn={"Ref": "Topic"}, Protocol="email", Endpoint="desk@example.org"
    ),
    "Messages": _resource("AWS::SQS::Queue"),
    "MessagesPolicy": _resource("AWS::SQS::QueuePolicy", Queues=[{"Ref": "Messages"}], PolicyDocument=_POLICY),
    "Alarm": _resource(
        "AWS::CloudWatch::Alarm",
        ComparisonOperator="GreaterThanThreshold",
        EvaluationPeriods=1,
        MetricName="Lag",
        Namespace="desk",
        Period=60,
        Statistic="Maximum",
        Threshold=1,
    ),
    "Dashboard": _resource("AWS::CloudWatch::Dashboard", DashboardBody='{"widgets": []}'),
    "Template": _resource(
        "AWS::EC2::LaunchTemplate", LaunchTemplateData={"ImageId": "ami-12c6146b", "InstanceType": "t3.micro"}
    ),
    "Fleet": _resource(
        "AWS::AutoScaling::AutoScalingGroup",
        LaunchTemplate={"LaunchTemplateId": {"Ref": "Template"}, "Version": "1"},
        MaxSize="4",
        MetricsCollection=[{"Granularity": "1Minute"}],
        MinSize="0",
        VPCZoneIdentifier=[{"Ref": "Subnet"}],
    ),
    "Profile": _resource("AWS::IAM::InstanceProfile", Roles=[{"Ref": "Role"}]),
    "Security": _resource("AWS::EMR::SecurityConfiguration", SecurityConfiguration={"EncryptionConfiguration": {}}),
    "Cluster": _resource(
        "AWS::EMR::Cluster",
        Applications=[{"Name": "Spark"}],
        Configurations=[{"Classification": "spark", "ConfigurationProperties": {"a": "b"}}],
        Instances={
            "CoreInstanceGroup": _instances(2),
            "Ec2SubnetId": {"Ref": "Subnet"},
            "KeepJobFlowAliveWhenNoSteps": True,
            "MasterInstanceGroup": _instances(1),
        },
        JobFlowRole={"Ref": "Profile"},
        Name="staying",
        ReleaseLabel="emr-7.0.0",
        SecurityConfiguration="strict",
        ServiceRole={"Ref": "Role"},
        Tags=_TAGS,
    ),
    "Vpc": _resource("AWS::EC2::VPC", CidrBlock="10.0.0.0/16", EnableDnsHostnames=True),
    "Subnet": _resource(
        "AWS::EC2::Subnet",
        AvailabilityZone="us-east-1a",
        CidrBlock="10.0.0.0/20",
        MapPublicIpOnLaunch=True,
        VpcId={"Ref": "Vpc"},
    ),
    "Group": _resource(
        "AWS::EC2::SecurityGroup", GroupDescription="jobs", SecurityGroupEgress=_EGRESS, VpcId={"Ref": "Vpc"}
    ),
    "Gateway": _resource("AWS::EC2::InternetGateway", Tags=_TAGS),
    "Routes": _resource("AWS::EC2::RouteTable", Tags=_TAGS, VpcId={"Ref": "Vpc"}),
    "Association": _resource(
        "AWS::EC2::SubnetRouteTableAssociation", RouteTableId={"Ref": "Routes"}, SubnetId={"Ref": "Subnet"}
    ),
    "Endpoint": _resource(
        "AWS::EC2::VPCEndpoint",
        RouteTableIds=[{"Ref": "Routes"}],
        ServiceName="com.amazonaws.us-east-1.s3",
        Tags=_TAGS,
        VpcEndpointType="Gateway",
        VpcId={"Ref": "Vpc"},
    ),
    "Call": _resource("Custom::AWS", ServiceToken=_arn("Function"), Create={"Fn::Join": ["", list(_CALL)]}),
    "Emptied": _resource("Custom::S3AutoDeleteObjects", ServiceToken=_arn("Function"), BucketName={"Ref": "Bucket"}),
    "Metadata": _resource("AWS::CDK::Metadata", Analytics="v2:deflate64:"),
}


def template_of(names: Iterable[str], attributes: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """A template of these resources and all that they name; attributes: outputs, as resource and attribute."""
    needed: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed[name] = None
            waiting += _named(RESOURCES[name])
    outputs = {key: {"Value": {"Fn::GetAtt": list(attribute)}} for key, attribute in attributes.items()}
    return {"Resources": {name: RESOURCES[name] for name in RESOURCES if name in needed}, "Outputs": outputs}


def _named(written: Any) -> Iterator[str]:
    if isinstance(written, Mapping):
        for key, item in written.items():
            match key:
                case "Ref" | "DependsOn":
                    yield item
                case "Fn::GetAtt":
                    yield item[0]
                case _:
                    yield from _named(item)
    elif isinstance(written, list):
        for item in written:
            yield from _named(item)
