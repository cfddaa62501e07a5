"""The state machine, its topic, and the rule that cleans up after what no state of it can see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from app import contract
from infra import grants, nag
from infra.clean_up import CleanUp
from infra.functions import LambdaFunctions
from infra.inference import Inference
from infra.ingestion import Ingestion
from infra.log_group import log_group
from infra.machine_role import allow_tasks
from infra.settings import Deployment
from infra.states.definition import Functions, Targets, definition
from infra.training import Training


class Workflow(Construct):
    """machine: the state machine. functions: its Lambdas by name. topic: where failures and alarms are told.

    lost_clean_ups: events of executions that were cut short and whose clean-up failed again and again.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        deployment: Deployment,
        ingestion: Ingestion,
        training: Training,
        inference: Inference,
        place: Mapping[str, str],
        key: kms.IKey,
        log_days: int,
    ) -> None:
        super().__init__(scope, construct_id)
        released = {
            contract.ENV_JOB_QUEUES: ",".join(queue.job_queue_arn for queue in ingestion.queues),
            **({contract.ENV_FLEET_GROUP: ingestion.fleet_group} if ingestion.fleet_group else {}),
            contract.ENV_DEPLOYMENT: deployment.name,
            **({contract.ENV_CLUSTER_ID: inference.cluster} if isinstance(inference.cluster, str) else {}),
        }
        self.functions = LambdaFunctions(
            self,
            "Functions",
            deployment=deployment,
            environment={**place, **released},
            log_days=log_days,
        ).by_name
        self.topic = _topic(self, key, deployment.observability.email)
        targets = Targets(
            functions=Functions(**{name: function.function_arn for name, function in self.functions.items()}),
            shards=ingestion.shards,
            fleet_group=ingestion.fleet_group,
            dataset=ingestion.dataset,
            training=training.job,
            cluster=inference.cluster,
            stream=inference.stream,
            feed=ingestion.feed,
            topic=self.topic.topic_arn,
            timeout_s=deployment.timeout_hours * 3600,
        )
        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("states.amazonaws.com"))
        self.topic.grant_publish(role)
        nag.acknowledge(
            *(role, "AwsSolutions-IAM5", "Of one key only: what SNS needs to encrypt."), "Action::kms:GenerateDataKey*"
        )
        allow_tasks(
            role, functions=self.functions.values(), ingestion=ingestion, training=training, inference=inference
        )
        self.machine = self._machine(targets, role, log_days)
        clean_up = self.functions["clean_up"]
        grants.grant_clean_up(clean_up, ingestion.fleet_group)
        grants.grant_executions(self, self.machine, self.functions["validate_input"], clean_up)
        self.lost_clean_ups = CleanUp(self, "CleanUp", machine=self.machine, function=clean_up).lost

    def _machine(self, targets: Targets, role: iam.Role, log_days: int) -> sfn.StateMachine:
        return sfn.StateMachine(
            self,
            "Machine",
            definition_body=sfn.DefinitionBody.from_string(
                Stack.of(self).to_json_string(_with_nulls(definition(targets)), 1)
            ),
            role=role,
            tracing_enabled=True,
            logs=sfn.LogOptions(
                destination=log_group(self, "Logs", days=log_days),
                level=sfn.LogLevel.ALL,
                include_execution_data=True,
            ),
        )


def _topic(scope: Construct, key: kms.IKey, email: str) -> sns.Topic:
    """A topic that alarms reach too: enforcing TLS gives it a policy, which takes the place of SNS's own."""
    topic = sns.Topic(scope, "Topic", enforce_ssl=True, master_key=key)
    topic.add_to_resource_policy(
        iam.PolicyStatement(
            principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
            actions=["sns:Publish"],
            resources=[topic.topic_arn],
            conditions={"StringEquals": {"aws:SourceAccount": Stack.of(scope).account}},
        )
    )
    if email:
        topic.add_subscription(subscriptions.EmailSubscription(email))
    return topic


def _with_nulls(value: Any) -> Any:
    """The value with a token for each None, which becomes null in the template: the CDK leaves None out of objects."""
    if isinstance(value, dict):
        return {name: _with_nulls(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_nulls(item) for item in value]
    return sfn.JsonPath.DISCARD if value is None else value
