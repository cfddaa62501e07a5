"""Every kind of resource that the templates hold: what of it is billed, or why nothing is.

A test reads the templates: one that is not listed here makes it fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_PARTS_OF_A_NETWORK = "part of the VPC, which is free: addresses and flow logs are billed"
_ACCESS = "permissions are free"

PRICED: Final[Mapping[str, tuple[str, ...]]] = {
    "AWS::AutoScaling::AutoScalingGroup": ("ec2", "address"),
    "AWS::Batch::ComputeEnvironment": ("ec2", "address"),
    "AWS::Batch::JobDefinition": ("fargate-vcpu", "fargate-memory", "address", "image-storage"),
    "AWS::CloudWatch::Alarm": ("alarm",),
    "AWS::CloudWatch::Dashboard": ("dashboard",),
    "AWS::EC2::FlowLog": ("log-ingest", "log-storage"),
    "AWS::EC2::LaunchTemplate": ("ec2", "disk"),
    "AWS::EMR::Cluster": ("ec2", "emr", "disk", "address"),
    "AWS::KMS::Key": ("key",),
    "AWS::Lambda::Function": ("lambda-request", "lambda-memory"),
    "AWS::Logs::LogGroup": ("log-ingest", "log-storage", "metric"),
    "AWS::S3::Bucket": ("s3-storage", "s3-put", "s3-get"),
    # It also starts what is no resource of the stack: the cluster and the training job.
    "AWS::StepFunctions::StateMachine": (
        *("transition", "trace", "ec2", "emr", "disk", "address"),
        *("sagemaker", "sagemaker-volume", "image-storage"),
    ),
}
"""Resource type and its groups in the price table."""

FREE: Final[Mapping[str, str]] = {
    "AWS::Athena::NamedQuery": "text",
    "AWS::Athena::WorkGroup": "a query is billed to who asks it: 5 USD for a TB read, 10 MB at least; a run asks none",
    "AWS::Batch::JobQueue": "Batch bills nothing beside the instances",
    "AWS::CDK::Metadata": "text",
    "AWS::EC2::InternetGateway": _PARTS_OF_A_NETWORK,
    "AWS::EC2::Route": _PARTS_OF_A_NETWORK,
    "AWS::EC2::RouteTable": _PARTS_OF_A_NETWORK,
    "AWS::EC2::SecurityGroup": _PARTS_OF_A_NETWORK,
    "AWS::EC2::SecurityGroupEgress": _PARTS_OF_A_NETWORK,
    "AWS::EC2::SecurityGroupIngress": _PARTS_OF_A_NETWORK,
    "AWS::EC2::Subnet": _PARTS_OF_A_NETWORK,
    "AWS::EC2::SubnetRouteTableAssociation": _PARTS_OF_A_NETWORK,
    "AWS::EC2::VPC": _PARTS_OF_A_NETWORK,
    "AWS::EC2::VPCEndpoint": "a gateway endpoint is free; the test makes sure that it is one",
    "AWS::EC2::VPCGatewayAttachment": _PARTS_OF_A_NETWORK,
    "AWS::EMR::SecurityConfiguration": "text",
    "AWS::Events::Rule": "events that AWS's own services send are free",
    "AWS::Glue::Database": "the first million objects and requests a month are free for ever; this is one object",
    "AWS::Glue::Table": "the first million objects and requests a month are free for ever; this is one object",
    "AWS::IAM::InstanceProfile": _ACCESS,
    "AWS::IAM::Policy": _ACCESS,
    "AWS::IAM::Role": _ACCESS,
    "AWS::Lambda::Permission": _ACCESS,
    "AWS::S3::BucketPolicy": _ACCESS,
    "AWS::SNS::Topic": "1,000 mails a month are free for ever; a run that succeeds sends none",
    "AWS::Lambda::EventInvokeConfig": _ACCESS,
    "AWS::SNS::Subscription": "1,000 mails a month are free",
    "AWS::SNS::TopicPolicy": _ACCESS,
    "AWS::SQS::Queue": "a million requests a month are free for ever; it gets one for each clean-up that is lost",
    "AWS::SQS::QueuePolicy": _ACCESS,
    "AWS::Scheduler::Schedule": "14 million calls a month are free for ever; it makes two a day",
    "Custom::AWS": "a Lambda call while deploying",
    "Custom::S3AutoDeleteObjects": "a Lambda call while destroying",
}
"""Resource type and why it costs nothing."""
