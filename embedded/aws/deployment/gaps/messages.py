"""What tells people and queues: SNS, SQS, CloudWatch and its logs."""

from __future__ import annotations

import json
from typing import Final

from embedded.aws.account import ACCOUNT, PARTITION, REGION
from embedded.aws.deployment.resources import Made, Rule, Wanted


def _topic(wanted: Wanted) -> Made:
    name = wanted.named("TopicName")
    attributes = wanted.properties.without("Subscription", "Tags", "TopicName")
    tags = wanted.properties.get("Tags", [])
    arn = wanted.api.call("sns", "create_topic", {"Name": name, "Attributes": attributes, "Tags": tags})["TopicArn"]
    for subscription in wanted.properties.get("Subscription", ()):
        wanted.api.call("sns", "subscribe", {**subscription, "TopicArn": arn})
    return Made(arn, {"TopicArn": arn, "TopicName": name})


def _topic_policy(wanted: Wanted) -> Made:
    policy = json.dumps(wanted.properties["PolicyDocument"])
    for topic in wanted.properties["Topics"]:
        attribute = {"TopicArn": topic, "AttributeName": "Policy", "AttributeValue": policy}
        wanted.api.call("sns", "set_topic_attributes", attribute)
    return Made(wanted.name)


_SUBSCRIPTION: Final = ("TopicArn", "Protocol", "Endpoint")


def _subscription(wanted: Wanted) -> Made:
    named = {name: wanted.properties[name] for name in _SUBSCRIPTION if name in wanted.properties}
    more = {"Attributes": wanted.properties.without(*_SUBSCRIPTION), "ReturnSubscriptionArn": True}
    arn = wanted.api.call("sns", "subscribe", {**named, **more})["SubscriptionArn"]
    return Made(arn, {"Arn": arn})


def _queue_policy(wanted: Wanted) -> Made:
    policy = json.dumps(wanted.properties["PolicyDocument"])
    for queue in wanted.properties["Queues"]:
        wanted.api.call("sqs", "set_queue_attributes", {"QueueUrl": queue, "Attributes": {"Policy": policy}})
    return Made(wanted.name)


def _alarm(wanted: Wanted) -> Made:
    name = wanted.named("AlarmName")
    wanted.api.call("cloudwatch", "put_metric_alarm", {**wanted.properties, "AlarmName": name})
    return Made(name, {"Arn": f"arn:{PARTITION}:cloudwatch:{REGION}:{ACCOUNT}:alarm:{name}"})


def _dashboard(wanted: Wanted) -> Made:
    name = wanted.named("DashboardName")
    wanted.api.call("cloudwatch", "put_dashboard", {**wanted.properties, "DashboardName": name})
    return Made(name)


def _log_group(wanted: Wanted) -> Made:
    name = wanted.named("LogGroupName")
    properties = wanted.properties.without("RetentionInDays")
    wanted.api.call("logs", "create_log_group", {**properties, "LogGroupName": name})
    if "RetentionInDays" in wanted.properties:
        days = wanted.properties["RetentionInDays"]
        wanted.api.call("logs", "put_retention_policy", {"LogGroupName": name, "RetentionInDays": days})
    return Made(name, {"Arn": f"arn:{PARTITION}:logs:{REGION}:{ACCOUNT}:log-group:{name}:*"})


RULES: Final = (
    Rule("sns-topic", "AWS::SNS::Topic", "tags are lost, and its ARN cannot be asked for", _topic),
    Rule("sns-topic-policy", "AWS::SNS::TopicPolicy", "the type is left out", _topic_policy),
    Rule("sns-subscription", "AWS::SNS::Subscription", "the type is left out", _subscription),
    Rule("sqs-queue-policy", "AWS::SQS::QueuePolicy", "the type is left out", _queue_policy),
    Rule("cloudwatch-alarm", "AWS::CloudWatch::Alarm", "the type is left out", _alarm),
    Rule("cloudwatch-dashboard", "AWS::CloudWatch::Dashboard", "a name is another one each time", _dashboard),
    Rule("logs-log-group", "AWS::Logs::LogGroup", "its ARN lacks the end that policies count on", _log_group),
)
