"""Phase III on EMR: roles, encryption and files of the cluster, whether it stays or lives for one session."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aws_cdk import CfnParameter, CfnRule, Fn, Stack
from aws_cdk import aws_emr as emr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from app import contract
from infra import nag
from infra.access import may_read, may_write
from infra.cluster import Cluster
from infra.log_group import log_group
from infra.network import Network
from infra.root import ROOT
from infra.settings import InferenceSettings
from infra.spark import CHECKPOINTS, spark_submit
from infra.states.serve import Stream

_LOGS_PREFIX = "emr/"
_KEY_FAMILIES = ("kms:ReEncrypt*", "kms:GenerateDataKey*")


class Inference(Construct):
    """cluster: CreateCluster's parameters, or the cluster's id when it is always on; stream: the streaming step.

    role: what runs on the nodes may do (the stack grants); service_role: EMR's own.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        deployment: str,
        settings: InferenceSettings,
        always_on: bool,
        network: Network,
        logs: s3.IBucket,
        place: Mapping[str, str],
        key: kms.IKey,
        log_days: int,
    ) -> None:
        super().__init__(scope, construct_id)
        environment = self._built("Environment", "environment.tar.gz")
        certificates = self._built("Certificates", "certificates.zip")
        script = assets.Asset(self, "Script", path=str(ROOT / "emr" / "stream.py"))
        self.role = _node_role(self, key)
        for file in (environment, certificates, script):
            may_read(self.role, file.bucket, file.s3_object_key)
        may_write(self.role, logs, f"{_LOGS_PREFIX}*")
        self.service_role = _service_role(self, key, self.role)
        security = emr.CfnSecurityConfiguration(
            self, "Security", security_configuration=_security(key.key_arn, certificates.s3_object_url)
        )
        cluster = Cluster(
            deployment,
            settings,
            service_role=self.service_role.role_name,
            instance_profile=iam.InstanceProfile(self, "Profile", role=self.role).instance_profile_name,
            security_configuration=security.ref,
            log_uri=logs.s3_url_for_object(_LOGS_PREFIX),
            subnet=network.vpc.public_subnets[0].subnet_id,
            security_group=network.emr.security_group_id,
        )
        self.cluster: Mapping[str, Any] | str = (
            self._staying(cluster, f"{deployment}-always-on") if always_on else cluster.parameters()
        )
        metrics = log_group(self, "Metrics", days=log_days)
        metrics.grant_write(self.role)
        self.stream = Stream(
            submit=spark_submit(settings, environment.s3_object_url, script.s3_object_url),
            environ={
                **place,
                contract.ENV_DEPLOYMENT: deployment,
                contract.ENV_METRICS_LOG_GROUP: metrics.log_group_name,
                "AWS_DEFAULT_REGION": Stack.of(self).region,
            },
            checkpoints=CHECKPOINTS,
            timeout_s=settings.stream_timeout_min * 60,
        )

    def _staying(self, cluster: Cluster, name: str) -> str:
        """Id of a cluster that is there as long as the stack."""
        stays = cluster.create(self, name)
        for rule in ("AwsSolutions-EMR4", "AwsSolutions-EMR5"):
            nag.acknowledge(stays, rule, "Its security configuration encrypts; the rule reads it one level too high.")
        nag.acknowledge(stays, "AwsSolutions-EMR6", "Nobody logs in to a node: it has no key, and no rule lets any in.")
        return stays.ref

    def _built(self, name: str, file: str) -> assets.Asset:
        """A file that `make emr` builds. Without it the templates synthesise, and refuse to be deployed."""
        path = ROOT / "build" / "emr" / file
        if not path.exists():
            state = CfnParameter(self, f"{name}File", default="missing", description="Whether `make emr` has built it")
            CfnRule(self, f"{name}IsBuilt").add_assertion(
                Fn.condition_equals(state.value_as_string, "built"),
                f"build/emr/{file} is missing: type `make emr`, deploy again",
            )
            path = Path(__file__)  # stands for the file in the template, which cannot be deployed
        return assets.Asset(self, name, path=str(path))


def _node_role(scope: Construct, key: kms.IKey) -> iam.Role:
    role = iam.Role(scope, "NodeRole", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"))
    _may_use(role, key)
    own_programs = "arn:aws:s3:::*.elasticmapreduce/*"
    role.add_to_policy(iam.PolicyStatement(actions=["s3:GetObject"], resources=[own_programs]))
    reason = "EMR's own buckets, from which a node fetches EMR's programs when it starts."
    nag.acknowledge(role, "AwsSolutions-IAM5", reason, f"Resource::{own_programs}")
    return role


def _service_role(scope: Construct, key: kms.IKey, node_role: iam.Role) -> iam.Role:
    policy = iam.ManagedPolicy.from_aws_managed_policy_name("service-role/AmazonEMRServicePolicy_v2")
    role = iam.Role(
        scope,
        "ServiceRole",
        assumed_by=iam.ServicePrincipal("elasticmapreduce.amazonaws.com"),
        managed_policies=[policy],
    )
    _may_use(role, key, "kms:CreateGrant")
    nag.acknowledge_managed_policy(role, policy, "AWS's policy for EMR, which allows only what carries EMR's tag.")
    role.add_to_policy(
        iam.PolicyStatement(
            actions=["iam:PassRole"],
            resources=[node_role.role_arn],
            conditions={"StringLike": {"iam:PassedToService": "ec2.amazonaws.com*"}},
        )
    )
    return role


def _may_use(role: iam.Role, key: kms.IKey, *more: str) -> None:
    key.grant(role, "kms:Encrypt", "kms:Decrypt", "kms:DescribeKey", *_KEY_FAMILIES, *more)
    families = [f"Action::{family}" for family in _KEY_FAMILIES]
    nag.acknowledge(role, "AwsSolutions-IAM5", "Of one key only: what EBS needs to encrypt a disk.", *families)


def _security(key_arn: str, certificates_url: str) -> Mapping[str, Any]:
    """Encryption in transit and at rest, IMDSv2.

    https://docs.aws.amazon.com/emr/latest/ManagementGuide/emr-create-security-configuration.html
    """
    return {
        "EncryptionConfiguration": {
            "EnableInTransitEncryption": True,
            "InTransitEncryptionConfiguration": {
                "TLSCertificateConfiguration": {"CertificateProviderType": "PEM", "S3Object": certificates_url}
            },
            "EnableAtRestEncryption": True,
            "AtRestEncryptionConfiguration": {
                "S3EncryptionConfiguration": {"EncryptionMode": "SSE-S3"},
                "LocalDiskEncryptionConfiguration": {
                    "EncryptionKeyProviderType": "AwsKms",
                    "AwsKmsKey": key_arn,
                    "EnableEbsEncryption": True,
                },
            },
        },
        "InstanceMetadataServiceConfiguration": {
            "MinimumInstanceMetadataServiceVersion": 2,
            "HttpPutResponseHopLimit": 1,
        },
    }
