"""The two stacks: data, and the compute that works on it. They only wire and grant.

Destroying the compute stack leaves the data; the data stack knows nothing of the compute.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, cast

from aws_cdk import App, CfnOutput, Duration, RemovalPolicy, Stack, Tags
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from app import contract
from infra import grants, nag
from infra.context import load, written_context
from infra.inference import Inference
from infra.ingestion import Ingestion
from infra.network import Network
from infra.observability import Observability
from infra.schedules import Schedules
from infra.settings import Deployment
from infra.storage import Storage
from infra.tagging import DEPLOYMENT_TAG, PHASE_TAG
from infra.training import Training
from infra.training_nodes import TrainingNodes
from infra.workflow import Workflow

_ROTATION = Duration.days(2560)
"""The longest that KMS allows."""
_PHASES = {"Ingestion": "ingest", "Training": "train", "TrainingNodes": "train", "Inference": "serve"}
"""Constructs whose resources cost money, and the phase that they cost it for."""


class DataStack(Stack):
    """What outlives the compute: buckets, the table over predictions, the consumers' role."""

    def __init__(self, scope: Construct, construct_id: str, *, deployment: Deployment) -> None:
        super().__init__(scope, construct_id, description="stockflow: bars, models and predictions")
        self.storage = Storage(
            self,
            "Storage",
            retain=deployment.retain,
            tick_days=deployment.storage.tick_days,
            predictions_days=deployment.storage.predictions_days,
            consumer_principals=deployment.storage.consumer_principals,
        )


class ComputeStack(Stack):
    """Fleet, training jobs, cluster, and the state machine that puts them in order."""

    def __init__(self, scope: Construct, construct_id: str, *, deployment: Deployment, storage: Storage) -> None:
        super().__init__(scope, construct_id, description="stockflow: ingest, training and streaming inference")
        place = {
            contract.ENV_MARKET_BUCKET: storage.market.bucket_name,
            contract.ENV_MODEL_BUCKET: storage.model.bucket_name,
            contract.ENV_PREDICTIONS_BUCKET: storage.predictions.bucket_name,
        }
        log_days = deployment.observability.log_days
        key = _key(self)
        self.network = Network(self, "Network")
        self.ingestion = Ingestion(
            self,
            "Ingestion",
            settings=deployment.ingestion,
            network=self.network,
            place=place,
            log_days=log_days,
            feed_timeout_min=deployment.inference.stream_timeout_min,
        )
        self.training = Training(
            *(self, "Training"),
            deployment=deployment.name,
            settings=deployment.training,
            storage=storage,
            place=place,
        )
        self.training_nodes = (
            TrainingNodes(
                *(self, "TrainingNodes"),
                settings=deployment.batch_training,
                timeout_min=deployment.training.max_runtime_min,
                network=self.network,
                batch_role=self.ingestion.batch_role,
                image=self.training.image,
                place=place,
                log_days=log_days,
            )
            if deployment.batch_training.nodes
            else None
        )
        self.inference = Inference(
            self,
            "Inference",
            deployment=deployment.name,
            settings=deployment.inference,
            always_on=deployment.always_on,
            network=self.network,
            logs=storage.logs,
            place=place,
            key=key,
            log_days=log_days,
        )
        self.workflow = Workflow(
            self,
            "Workflow",
            deployment=deployment,
            ingestion=self.ingestion,
            training=self.training,
            inference=self.inference,
            place=place,
            key=key,
            log_days=log_days,
        )
        grants.grant_jobs(self.ingestion.roles, storage)
        grants.grant_training(self.training.role, storage)
        if self.training_nodes:
            grants.grant_nodes(self.training_nodes.role, storage)
        grants.grant_stream(self.inference.role, storage)
        if stream := deployment.settings.serving.kinesis_stream:
            grants.grant_kinesis(self.inference.role, self.ingestion.roles.feed, stream)
        grants.grant_functions(self.workflow.functions, storage)
        Schedules(self, "Schedules", settings=deployment.schedules, machine=self.workflow.machine)
        Observability(
            self,
            "Observability",
            deployment=deployment.name,
            settings=deployment.observability,
            workflow=self.workflow,
            fleet_group=self.ingestion.fleet_group,
            tags=[
                f"{DEPLOYMENT_TAG} = {deployment.name}",
                f"{PHASE_TAG} = {', '.join(dict.fromkeys(_PHASES.values()))}",
            ],
        )
        for name, phase in _PHASES.items():
            if found := self.node.try_find_child(name):
                Tags.of(cast("Construct", found)).add(PHASE_TAG, phase)
        CfnOutput(self, "StateMachine", value=self.workflow.machine.state_machine_arn)


def build(app: App, deployment: Deployment) -> tuple[DataStack, ComputeStack]:
    """Add both stacks to the app and hold them against the AwsSolutions rules."""
    data = DataStack(app, f"{deployment.name}-data", deployment=deployment)
    compute = ComputeStack(app, f"{deployment.name}-compute", deployment=deployment, storage=data.storage)
    Tags.of(app).add(DEPLOYMENT_TAG, deployment.name)
    nag.check(app)
    return data, compute


def synthesise(context: Mapping[str, Any] | None = None, outdir: str | None = None) -> str:
    """Write the templates; returns their folder.

    context: settings over those of cdk.json; `cdk -c` comes over both. outdir: by default where the CDK's command
    line asks for it, else cdk.out. Raises SettingsError for a setting that is wrong.
    """
    app = App(
        context={**written_context(), **(context or {})}, outdir=outdir or os.environ.get("CDK_OUTDIR", "cdk.out")
    )
    build(app, load(app.node.get_all_context()))
    return app.synth().directory


def _key(scope: Construct) -> kms.Key:
    """For what S3's own keys do not cover: the disks of EMR, and the topic, which alarms must be able to reach."""
    key = kms.Key(
        *(scope, "Key"),
        enable_key_rotation=True,
        rotation_period=_ROTATION,  # each of the first two rotations adds as much to the bill as the key itself
        removal_policy=RemovalPolicy.DESTROY,
    )
    key.grant(iam.ServicePrincipal("cloudwatch.amazonaws.com"), "kms:Decrypt", "kms:GenerateDataKey*")
    return key
