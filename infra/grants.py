"""Who may read and write which keys: one function for each who, so that the whole of it fits on two pages.

Patterns are the contract's own key functions with ``*`` in place of names that are made while the system runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from aws_cdk import ArnFormat, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from app import contract
from infra import nag
from infra.access import may_delete, may_list, may_read, may_write
from infra.ingestion import JobRoles
from infra.machine_role import allow_scaling
from infra.storage import Storage

_BARS = f"{contract.BARS_PREFIX}*"
_ANSWERS = f"{contract.ANSWERS_PREFIX}*"
_JOURNALS = f"{contract.journal_prefix('*', '*')}*"
_RUNS = f"{contract.RUNS_PREFIX}*"
_TICKS = f"{contract.TICKS_PREFIX}*"
_DATASETS = f"{contract.DATASETS_PREFIX}*"
_MODELS = f"{contract.MODELS_PREFIX}*"
_PREDICTIONS = f"{contract.PREDICTIONS_PREFIX}*"


def grant_jobs(roles: JobRoles, storage: Storage) -> None:
    """The Batch jobs: ingest, dataset and feed."""
    for role in (roles.ingest, roles.dataset, roles.feed):
        may_list(role, storage.market)
        may_read(role, storage.market, _BARS, _RUNS)
    may_read(roles.ingest, storage.market, _ANSWERS)
    may_write(roles.ingest, storage.market, _BARS, _ANSWERS, _JOURNALS, contract.manifest_key("*", "*"))
    may_delete(roles.ingest, storage.market, _BARS, _ANSWERS, _JOURNALS)  # what is merged, and what is finished
    may_write(roles.dataset, storage.market, contract.result_key("*", "dataset"))
    may_list(roles.dataset, storage.model)
    may_write(roles.dataset, storage.model, _DATASETS)
    may_delete(roles.dataset, storage.model, contract.dataset_spec_key("*"))
    may_read(roles.feed, storage.market, _TICKS)  # a live feed goes on after what it has written
    may_write(roles.feed, storage.market, _TICKS, contract.feed_end_key("*"), contract.live_session_key("*"))


def grant_training(role: iam.Role, storage: Storage) -> None:
    """A training job: any model's files, but not the pointer to the current one."""
    may_list(role, storage.model)
    may_read(role, storage.model, _DATASETS, _MODELS)
    may_write(role, storage.model, contract.model_key("*", "*"), f"{contract.TRAINING_JOBS_PREFIX}*")
    may_delete(role, storage.model, f"{contract.checkpoints_prefix('*')}*", contract.begun_key("*"))


def grant_nodes(role: iam.Role, storage: Storage) -> None:
    """A training job on several nodes of Batch: the same, and what the nodes tell each other."""
    grant_training(role, storage)
    may_read(role, storage.model, contract.nodes_key("*", "*", "*"))


def grant_stream(role: iam.Role, storage: Storage) -> None:
    """What runs on the cluster."""
    for bucket in (storage.market, storage.model, storage.predictions):
        may_list(role, bucket)
    may_read(role, storage.market, _BARS, _RUNS, _TICKS)
    may_read(role, storage.model, _MODELS)
    may_read(role, storage.predictions, _PREDICTIONS, contract.LATEST_PREDICTIONS_KEY)
    may_write(role, storage.predictions, _PREDICTIONS, contract.LATEST_PREDICTIONS_KEY)
    may_write(
        *(role, storage.market),
        *(contract.stream_key("*"), contract.stream_health_key("*"), contract.live_session_key("*")),
        *(contract.warm_state_key("*"), contract.result_key("*", "serve")),
    )


def grant_kinesis(reader: iam.Role, writer: iam.Role, name: str) -> None:
    """Reading and writing a stream of this account and region, by its name: it is not made here."""
    arn = Stack.of(reader).format_arn(service="kinesis", resource="stream", resource_name=name)
    for role, actions in ((reader, ("ListShards", "GetShardIterator", "GetRecords")), (writer, ("PutRecords",))):
        role.add_to_policy(iam.PolicyStatement(actions=[f"kinesis:{action}" for action in actions], resources=[arn]))


def grant_functions(functions: Mapping[str, lambda_.Function], storage: Storage) -> None:
    """The Lambdas between the phases, as far as S3 goes."""
    may_list(functions["validate_input"], storage.model)
    may_read(functions["validate_input"], storage.model, contract.LATEST_DATASET_KEY)
    plan = functions["plan_shards"]
    for bucket in (storage.market, storage.model):
        may_list(plan, bucket)
    may_read(plan, storage.market, contract.result_key("*", "serve"))
    may_read(plan, storage.model, contract.CURRENT_MODEL_KEY)
    may_write(plan, storage.market, contract.plan_key("*"))
    coverage = functions["check_coverage"]
    may_list(coverage, storage.market)
    may_read(coverage, storage.market, _RUNS)
    may_write(coverage, storage.market, contract.coverage_key("*"), contract.result_key("*", "ingest"))
    for name in ("gate_model", "promote_model"):
        may_list(functions[name], storage.model)
        may_read(functions[name], storage.model, _MODELS)
    may_write(functions["gate_model"], storage.model, contract.model_key("*", contract.MODEL_DECISION))
    may_write(functions["promote_model"], storage.model, contract.CURRENT_MODEL_KEY)
    verify = functions["verify_predictions"]
    may_list(verify, storage.market)
    may_read(verify, storage.market, _RUNS)
    may_list(verify, storage.predictions)
    may_read(verify, storage.predictions, contract.LATEST_PREDICTIONS_KEY)


def grant_clean_up(function: lambda_.Function, fleet_group: str | None) -> None:
    """Find and stop what an execution left: jobs and clusters have ids only once they are made."""
    stack = Stack.of(function)
    jobs = stack.format_arn(service="batch", resource="job", resource_name="*")
    training_jobs = stack.format_arn(service="sagemaker", resource="training-job", resource_name="*")
    clusters = stack.format_arn(service="elasticmapreduce", resource="cluster", resource_name="*")
    _allow(
        *(function, "*"),
        *("batch:ListJobs", "sagemaker:ListTrainingJobs", "elasticmapreduce:ListClusters"),
    )
    _allow(function, jobs, "batch:TerminateJob")
    _allow(function, training_jobs, "sagemaker:StopTrainingJob")
    _allow(
        *(function, clusters),
        *(f"elasticmapreduce:{name}" for name in ("CancelSteps", "DescribeCluster", "ListSteps", "TerminateJobFlows")),
    )
    role = cast("iam.Role", function.role)
    reason = "Jobs and clusters have names and ids only once they are made; listing actions know no resources."
    nag.acknowledge(
        *(role, "AwsSolutions-IAM5", reason),
        *("Resource::*", *(f"Resource::{arn}" for arn in (jobs, training_jobs, clusters))),
    )
    if fleet_group:
        _allow(function, "*", "autoscaling:DescribeAutoScalingGroups")
        allow_scaling(role, fleet_group)


def grant_executions(scope: Construct, machine: sfn.StateMachine, *functions: lambda_.Function) -> None:
    """Let functions of the machine look at its executions.

    A policy of its own: in the functions' default one it would make machine and functions wait for each other.
    """
    executions = Stack.of(scope).format_arn(
        service="states",
        resource="execution",
        resource_name=f"{machine.state_machine_name}:*",
        arn_format=ArnFormat.COLON_RESOURCE_NAME,
    )
    policy = iam.Policy(
        scope,
        "LookAtExecutions",
        roles=[function.role for function in functions if function.role],
        statements=[
            iam.PolicyStatement(actions=["states:ListExecutions"], resources=[machine.state_machine_arn]),
            iam.PolicyStatement(
                actions=["states:DescribeExecution"],
                resources=[executions],
            ),
        ],
    )
    reason = "Executions are named when they are started."
    nag.acknowledge(policy, "AwsSolutions-IAM5", reason, f"Resource::{executions}")


def _allow(function: lambda_.Function, resource: str, *actions: str) -> None:
    function.add_to_role_policy(iam.PolicyStatement(actions=list(actions), resources=[resource]))
