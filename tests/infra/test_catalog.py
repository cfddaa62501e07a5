"""Predictions as a table of Athena."""

from __future__ import annotations

from datetime import date

import pytest

from app import contract
from infra.catalog import QUERIES, query_sql
from tests.infra.templates import Template, only, output, resources, role_statements, text

TABLE = "AWS::Glue::Table"


def test_columns_are_those_of_the_contract(kept: Template) -> None:
    columns = only(kept, TABLE)["TableInput"]["StorageDescriptor"]["Columns"]
    assert [(column["Name"], column["Type"]) for column in columns] == [
        ("ticker", "string"),
        ("as_of", "timestamp"),
        ("horizon_min", "int"),
        ("last_price", "double"),
        ("predicted_return", "double"),
        ("predicted_price", "double"),
        ("price_p10", "double"),
        ("price_p50", "double"),
        ("price_p90", "double"),
        ("carried_minutes", "int"),
        ("model_id", "string"),
        ("produced_at", "timestamp"),
    ]
    assert [column["Name"] for column in columns] == [column.name for column in contract.PREDICTIONS]


def test_a_projected_partition_holds_what_serving_writes_on_that_day(kept: Template) -> None:
    parameters = only(kept, TABLE)["TableInput"]["Parameters"]
    location = text(parameters["storage.location.template"])
    key = contract.predictions_key(date(2026, 3, 12), "r1", 7)
    written = f"s3://<{output(kept, 'PredictionsBucket')}>/{key}"
    assert written.startswith(location.replace("${dt}", "2026-03-12"))
    assert location.endswith("/dt=${dt}/")


def test_partitions_are_worked_out_from_dates_and_need_no_crawler(kept: Template) -> None:
    table = only(kept, TABLE)["TableInput"]
    assert [(key["Name"], key["Type"]) for key in table["PartitionKeys"]] == [("dt", "string")]
    projection = {name: value for name, value in table["Parameters"].items() if name.startswith("projection.")}
    assert projection == {
        "projection.enabled": "true",
        "projection.dt.type": "date",
        "projection.dt.format": "yyyy-MM-dd",
        "projection.dt.range": "2025-01-01,NOW+1DAYS",
    }
    assert not resources(kept, "AWS::Glue::Crawler")


def test_the_workgroup_encrypts_results_and_limits_what_a_query_scans(kept: Template) -> None:
    settings = only(kept, "AWS::Athena::WorkGroup")["WorkGroupConfiguration"]
    assert settings["EnforceWorkGroupConfiguration"] is True
    assert settings["BytesScannedCutoffPerQuery"] == 10 * 1024**3
    results = settings["ResultConfiguration"]
    assert results["EncryptionConfiguration"] == {"EncryptionOption": "SSE_S3"}
    assert text(results["OutputLocation"]) == f"s3://<{output(kept, 'LogsBucket')}>/athena/"


def test_named_queries_are_in_the_workgroup_and_over_the_table(kept: Template) -> None:
    (workgroup,) = resources(kept, "AWS::Athena::WorkGroup")
    (database,) = resources(kept, "AWS::Glue::Database")
    queries = {query["Name"]: query for query in resources(kept, "AWS::Athena::NamedQuery").values()}
    assert queries.keys() == QUERIES.keys()
    for query in queries.values():
        assert query["WorkGroup"] == {"Ref": workgroup}
        assert query["Database"] == {"Ref": database}
        assert f'FROM "<{database}>"."predictions"' in text(query["QueryString"])


@pytest.mark.parametrize("name", QUERIES)
def test_queries_read_days_not_the_whole_table(name: str) -> None:
    sql = query_sql(name, "stockflow_data")
    assert 'FROM "stockflow_data"."predictions"\n    WHERE dt ' in sql
    assert sql.count("stockflow_data") == 1
    assert "$" not in sql


def test_a_consumer_may_query_this_table_in_this_workgroup_only(kept: Template) -> None:
    here = "<AWS::Region>:<AWS::AccountId>"
    (database,) = resources(kept, "AWS::Glue::Database")
    statements = [found for found in role_statements(kept) if found.holder == output(kept, "ConsumerRole")]
    athena = {target for found in statements for target in found.resources if ":athena:" in target}
    tables = {target for found in statements for target in found.resources if ":table/" in target}
    assert athena == {f"arn:<AWS::Partition>:athena:{here}:workgroup/Kept"}
    assert tables == {f"arn:<AWS::Partition>:glue:{here}:table/<{database}>/predictions"}
    glue = {action for found in statements for action in found.actions if action.startswith("glue:")}
    assert glue == {"glue:GetDatabase", "glue:GetDatabases", "glue:GetTable", "glue:GetPartitions"}
