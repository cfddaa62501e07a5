"""The buckets, the table over predictions, and the role of those who read them."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import CfnOutput, Duration, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from app import contract
from infra import access
from infra.catalog import Catalog

_LOGS_DAYS = 30
_OLD_VERSIONS_DAYS = 30
_OLD_BARS_DAYS = 7
_JOB_OUTPUT_DAYS = 30


class Storage(Construct):
    """Four buckets, the catalog over predictions and the consumers' role.

    market, model, predictions: see app.contract; logs: access logs and results of queries.
    consumer: who assumes it may read predictions and nothing else, as objects or through Athena.

    retain: keep buckets and objects when the stack is destroyed.
    tick_days, predictions_days: how long ticks and predictions stay; 0 keeps predictions for ever.
    consumer_principals: ARNs that may assume the role; none means this account, whose own policies then decide.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        retain: bool,
        tick_days: int,
        predictions_days: int,
        consumer_principals: Sequence[str] = (),
    ) -> None:
        super().__init__(scope, id)
        # Access logs come by bucket policy: the buckets know no ACLs.
        self.node.set_context("@aws-cdk/aws-s3:serverAccessLogsUseBucketPolicy", True)
        self._retain = retain
        self.logs = self._bucket("Logs", [_expire("", _LOGS_DAYS)])
        # A merge overwrites and deletes bars, and Yahoo forgets them after 30 days: a bad merge must be reversible.
        self.market = self._data_bucket("Market", _OLD_BARS_DAYS, [_expire(contract.TICKS_PREFIX, tick_days)])
        self.model = self._data_bucket(
            "Model", _OLD_VERSIONS_DAYS, [_expire(contract.TRAINING_JOBS_PREFIX, _JOB_OUTPUT_DAYS)]
        )
        self.predictions = self._data_bucket("Predictions", _OLD_VERSIONS_DAYS, _predictions_rules(predictions_days))
        self.catalog = Catalog(self, "Catalog", predictions=self.predictions, results=self.logs)
        self.consumer = self._make_consumer(consumer_principals)
        self._make_outputs()

    def _data_bucket(self, role: str, old_versions_days: int, rules: Sequence[s3.LifecycleRule]) -> s3.Bucket:
        old_versions = s3.LifecycleRule(
            noncurrent_version_expiration=Duration.days(old_versions_days), expired_object_delete_marker=True
        )
        return self._bucket(role, [old_versions, *rules], logs=self.logs)

    def _bucket(self, role: str, rules: Sequence[s3.LifecycleRule], logs: s3.Bucket | None = None) -> s3.Bucket:
        """A private bucket; one with `logs` holds data: it is versioned and its accesses are logged there."""
        return s3.Bucket(
            self,
            role,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            versioned=logs is not None,
            lifecycle_rules=[s3.LifecycleRule(abort_incomplete_multipart_upload_after=Duration.days(7)), *rules],
            server_access_logs_bucket=logs,
            server_access_logs_prefix=f"access/{role.lower()}/" if logs else None,
            removal_policy=RemovalPolicy.RETAIN if self._retain else RemovalPolicy.DESTROY,
            auto_delete_objects=not self._retain,
        )

    def _make_consumer(self, principals: Sequence[str]) -> iam.Role:
        trusted: list[iam.PrincipalBase] = [iam.ArnPrincipal(arn) for arn in principals]
        role = iam.Role(
            self,
            "Consumer",
            description="Assumed by who reads predictions",
            assumed_by=iam.CompositePrincipal(*(trusted or [iam.AccountRootPrincipal()])),
        )
        access.may_read(role, self.predictions, f"{contract.PREDICTIONS_PREFIX}*", contract.LATEST_PREDICTIONS_KEY)
        access.may_list(role, self.predictions)
        self.catalog.may_query(role)
        return role

    def _make_outputs(self) -> None:
        for name, value in (
            ("MarketBucket", self.market.bucket_name),
            ("ModelBucket", self.model.bucket_name),
            ("PredictionsBucket", self.predictions.bucket_name),
            ("LogsBucket", self.logs.bucket_name),
            ("ConsumerRole", self.consumer.role_arn),
        ):
            CfnOutput(self, name, value=value).override_logical_id(name)


def _expire(prefix: str, days: int) -> s3.LifecycleRule:
    return s3.LifecycleRule(prefix=prefix or None, expiration=Duration.days(days))


def _predictions_rules(days: int) -> list[s3.LifecycleRule]:
    """What micro-batches write anew is kept for a day. No colder class: objects are billed as 128 KB at least there."""
    replaced = [
        s3.LifecycleRule(prefix=prefix, noncurrent_version_expiration=Duration.days(1))
        for prefix in (contract.LATEST_PREDICTIONS_KEY, contract.PREDICTIONS_PREFIX)
    ]
    return [*replaced, _expire(contract.PREDICTIONS_PREFIX, days)] if days else replaced
