"""The Lambdas between the phases: one role each, code without third-party packages."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from aws_cdk import Duration
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra import nag
from infra.lambda_code import ZONES, stage
from infra.log_group import log_group
from infra.settings import Deployment
from infra.states.definition import Functions

_TIMEOUT_S = 60
_MEMORY_MIB = 256


class LambdaFunctions(Construct):
    """by_name: the functions. environment: what all of them see, such as the names of the buckets."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        deployment: Deployment,
        environment: Mapping[str, str],
        log_days: int,
    ) -> None:
        super().__init__(scope, construct_id)
        with tempfile.TemporaryDirectory(prefix="stockflow-lambdas-") as folder:
            stage(Path(folder), deployment)
            code = lambda_.Code.from_asset(folder)
            names = [field.name for field in fields(Functions)]
            self.by_name = {name: self._function(name, code, environment, log_days) for name in names}

    def _function(
        self, name: str, code: lambda_.Code, environment: Mapping[str, str], log_days: int
    ) -> lambda_.Function:
        words = "".join(word.capitalize() for word in name.split("_"))
        group = log_group(self, f"{words}Logs", days=log_days)
        role = iam.Role(self, f"{words}Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        group.grant_write(role)
        function = lambda_.Function(
            self,
            words,
            code=code,
            handler=f"{name}.handler",
            runtime=lambda_.Runtime.PYTHON_3_12,
            architecture=lambda_.Architecture.ARM_64,
            role=role,
            environment={**environment, "PYTHONTZPATH": ZONES},
            timeout=Duration.seconds(_TIMEOUT_S),
            memory_size=_MEMORY_MIB,
            tracing=lambda_.Tracing.ACTIVE,
            log_group=group,
        )
        nag.acknowledge(function, "AwsSolutions-L1", "The newest Python that the project is tested on.")
        nag.acknowledge(role, "AwsSolutions-IAM5", "X-Ray's actions know no resources.", "Resource::*")
        return function
