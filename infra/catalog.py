"""Predictions as a table: any SQL client of Athena reads them, and no crawler has to find new days."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Final

from aws_cdk import Stack
from aws_cdk import aws_athena as athena
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from app import contract
from infra import access

TABLE: Final = "predictions"
RESULTS_PREFIX: Final = "athena/"
"""Where Athena leaves the rows of each query."""
GLUE_TYPES: Final = {
    "string": "string",
    "double": "double",
    "int32": "int",
    "int64": "bigint",
    "timestamp[ms, tz=UTC]": "timestamp",
}
"""Arrow types of the contract, and what Glue calls them."""
QUERIES: Final = {
    "newest_predictions": "The newest predictions of each ticker, one for each horizon, of those for today's session",
    "prediction_error": "Mean absolute error by ticker, day and horizon of the last 30 days, beside that of no change",
}
"""Named queries: ``queries/<name>.sql``, and what they answer."""
_MAX_SCAN_BYTES = 10 * 1024**3  # 5 cents a query; a day of 500 tickers is some 10 MB


class Catalog(Construct):
    """Glue database and table over the predictions, Athena workgroup and its named queries.

    predictions: bucket that holds them; results: bucket for what queries return.
    """

    def __init__(self, scope: Construct, id: str, *, predictions: s3.IBucket, results: s3.IBucket) -> None:
        super().__init__(scope, id)
        self._predictions = predictions
        self._results = results
        stack = Stack.of(self)
        # Both services demand a name. It is the stack's, so that two deployments in one account do not meet.
        self.workgroup = self._make_workgroup(stack.stack_name)
        self.database = glue.CfnDatabase(
            self,
            "Database",
            catalog_id=stack.account,
            database_input=glue.CfnDatabase.DatabaseInputProperty(name=stack.stack_name.lower().replace("-", "_")),
        )
        self._make_table()
        for name, description in QUERIES.items():
            self._make_query(name, description)

    def may_query(self, grantee: iam.IGrantable) -> None:
        """Allow `grantee` to query the table; it needs to read the predictions' objects besides."""
        stack = Stack.of(self)
        catalog = stack.format_arn(service="glue", resource="catalog")
        ours = stack.format_arn(service="glue", resource="database", resource_name=self.database.ref)
        default = stack.format_arn(service="glue", resource="database", resource_name="default")
        table = stack.format_arn(service="glue", resource="table", resource_name=f"{self.database.ref}/{TABLE}")
        workgroup = stack.format_arn(service="athena", resource="workgroup", resource_name=self.workgroup.name)
        run = ["StartQueryExecution", "StopQueryExecution", "GetQueryExecution", "GetQueryResults", "GetWorkGroup"]
        saved = ["ListNamedQueries", "GetNamedQuery", "BatchGetNamedQuery"]
        for actions, resources in (
            ([f"athena:{action}" for action in run + saved], [workgroup]),
            # Athena looks at the default database too before it runs a statement.
            (["glue:GetDatabase", "glue:GetDatabases"], [catalog, default, ours]),
            (["glue:GetTable", "glue:GetPartitions"], [catalog, ours, table]),
            (["s3:GetBucketLocation"], [self._predictions.bucket_arn, self._results.bucket_arn]),
            # Athena writes large results in parts, as the one who asks.
            (["s3:ListBucketMultipartUploads"], [self._results.bucket_arn]),
            (["s3:ListMultipartUploadParts"], [self._results.arn_for_objects(f"{RESULTS_PREFIX}*")]),
        ):
            iam.Grant.add_to_principal(grantee=grantee, actions=actions, resource_arns=resources).assert_success()
        access.may_read(grantee, self._results, f"{RESULTS_PREFIX}*")
        access.may_write(grantee, self._results, f"{RESULTS_PREFIX}*")
        access.may_list(grantee, self._results)

    def _make_workgroup(self, name: str) -> athena.CfnWorkGroup:
        settings = athena.CfnWorkGroup.WorkGroupConfigurationProperty(
            enforce_work_group_configuration=True,
            bytes_scanned_cutoff_per_query=_MAX_SCAN_BYTES,
            publish_cloud_watch_metrics_enabled=True,
            engine_version=athena.CfnWorkGroup.EngineVersionProperty(selected_engine_version="Athena engine version 3"),
            result_configuration=athena.CfnWorkGroup.ResultConfigurationProperty(
                output_location=self._results.s3_url_for_object(RESULTS_PREFIX),
                encryption_configuration=athena.CfnWorkGroup.EncryptionConfigurationProperty(
                    encryption_option="SSE_S3"
                ),
            ),
        )
        # Past queries are no data: they must not keep a stack from being destroyed.
        return athena.CfnWorkGroup(
            self, "Workgroup", name=name, recursive_delete_option=True, work_group_configuration=settings
        )

    def _make_table(self) -> None:
        location = self._predictions.s3_url_for_object(contract.PREDICTIONS_PREFIX)
        columns = [
            glue.CfnTable.ColumnProperty(name=column.name, type=GLUE_TYPES[column.arrow_type], comment=column.note)
            for column in contract.PREDICTIONS
        ]
        glue.CfnTable(
            self,
            "Table",
            catalog_id=Stack.of(self).account,
            database_name=self.database.ref,
            table_input=glue.CfnTable.TableInputProperty(
                name=TABLE,
                description=f"Predictions, schema version {contract.PREDICTIONS_SCHEMA_VERSION}",
                table_type="EXTERNAL_TABLE",
                partition_keys=[
                    glue.CfnTable.ColumnProperty(name="dt", type="string", comment="session, YYYY-MM-DD in New York")
                ],
                parameters={"classification": "parquet", **_projection(location)},
                storage_descriptor=glue.CfnTable.StorageDescriptorProperty(
                    location=location,
                    columns=columns,
                    input_format="org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
                    output_format="org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
                    serde_info=glue.CfnTable.SerdeInfoProperty(
                        serialization_library="org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
                    ),
                ),
            ),
        )

    def _make_query(self, name: str, description: str) -> None:
        athena.CfnNamedQuery(
            self,
            name.title().replace("_", ""),
            name=name,
            description=description,
            database=self.database.ref,
            work_group=self.workgroup.ref,
            query_string=query_sql(name, self.database.ref),
        )


def query_sql(name: str, database: str, table: str = TABLE) -> str:
    """The SQL of a named query (QUERIES) over a table with the columns of contract.PREDICTIONS and `dt`."""
    text = (Path(__file__).parent / "queries" / f"{name}.sql").read_text(encoding="utf-8")
    return Template(text).substitute(database=database, table=table)


def _projection(location: str) -> dict[str, str]:
    """Table properties with which Athena works the partitions out instead of looking them up."""
    return {
        "projection.enabled": "true",
        "projection.dt.type": "date",
        "projection.dt.format": "yyyy-MM-dd",
        "projection.dt.range": "2025-01-01,NOW+1DAYS",
        "storage.location.template": f"{location}dt=${{dt}}/",
    }
