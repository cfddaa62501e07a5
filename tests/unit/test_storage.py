"""S3 as the phases see it: errors in one family, tables and JSON that come back as they went."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.response import StreamingBody
from hypothesis import given
from hypothesis import strategies as st

from app import contract
from app.errors import ObjectChanged, ObjectMissing, StorageError
from app.settings import TrainingSettings
from app.storage import PATIENCE_S, Bucket, fingerprint, to_json
from app.tables import arrow_schema, get_table, put_table
from tests.fakes import FakeS3, bucket, client_error, make_bars, make_sessions


def failing(error: Exception) -> Bucket:
    return bucket(FakeS3(error))


CALLS = [
    lambda b: b.put("k", b""),
    lambda b: b.get("k"),
    lambda b: b.open("k"),
    lambda b: b.get_range("k", 0, 1),
    lambda b: b.exists("k"),
    lambda b: b.keys("k"),
    lambda b: b.get_json("k"),
    lambda b: get_table(b, "k"),
]


def test_a_missing_object_names_itself() -> None:
    with pytest.raises(ObjectMissing, match="s3://fake/runs/x does not exist: run the phase") as caught:
        bucket().get("runs/x")
    assert (caught.value.bucket, caught.value.key) == ("fake", "runs/x")


def test_existence_is_that_of_the_very_key() -> None:
    held = bucket()
    held.put("a/b", b"")
    assert held.exists("a/b")
    assert not held.exists("a")


def test_a_missing_object_cannot_be_opened() -> None:
    with pytest.raises(ObjectMissing, match="s3://fake/runs/x does not exist"):
        bucket().open("runs/x")


def test_an_object_that_must_replace_another_is_written_only_over_that_one() -> None:
    held = bucket()
    held.put("k", b"1", replaces="")
    with pytest.raises(ObjectChanged, match="s3://fake/k was changed by somebody else meanwhile: it is left as it is"):
        held.put("k", b"2", replaces="")
    body, tag = held.get_tagged("k")
    held.put("k", b"3", replaces=tag)
    with pytest.raises(ObjectChanged):
        held.put("k", b"4", replaces=tag)
    assert (body, held.get("k")) == (b"1", b"3")
    held.delete("k")
    with pytest.raises(ObjectMissing):
        held.put("k", b"5", replaces=tag)


def test_a_part_of_an_object_is_asked_for_alone() -> None:
    s3 = FakeS3()
    held = bucket(s3)
    held.put("k", bytes(range(200)))
    assert held.get_range("k", 10, 3) == bytes([10, 11, 12])
    assert s3.gets == [("k", range(10, 13))]


@given(
    st.integers(0, 5000),
    st.lists(st.tuples(st.sampled_from(["seek", "end", "skip", "read"]), st.integers(0, 6000)), max_size=20),
)
def test_an_opened_object_reads_as_the_same_bytes_in_a_file_do(size: int, steps: list[tuple[str, int]]) -> None:
    body = np.random.default_rng(size).bytes(size)
    held = bucket()
    held.put("k", body)
    with held.open("k") as opened, io.BytesIO(body) as expected:
        for what, number in steps:
            for file in (opened, expected):
                if what == "seek":
                    file.seek(number)
                elif what == "skip":
                    file.seek(number % 100, io.SEEK_CUR)
                elif what == "end":
                    file.seek(-min(number, size), io.SEEK_END)
            if what == "read":
                assert opened.read(number) == expected.read(number)
            assert opened.tell() == expected.tell()
        assert opened.seek(0) == 0
        assert opened.read() == body


def test_a_part_may_be_asked_of_one_version_of_an_object_alone() -> None:
    held = bucket()
    tag = held.put("k", b"0123456789")
    assert held.size_tagged("k") == (10, tag)
    assert held.get_range("k", 2, 3, tag) == b"234"
    held.put("k", b"abcdefghij")
    assert held.get_range("k", 2, 3) == b"cde"
    with pytest.raises(ObjectChanged, match="s3://fake/k was changed by somebody else meanwhile"):
        held.get_range("k", 2, 3, tag)


@pytest.mark.parametrize("other", [b"shorter", b"y" * 10**6, b"longer" * 10**6])
def test_an_opened_object_that_is_replaced_cannot_be_read_on(other: bytes) -> None:
    held = bucket()
    held.put("k", b"x" * 10**6)
    with held.open("k") as opened:
        assert opened.read(1) == b"x"
        held.put("k", other)
        with pytest.raises(ObjectChanged):
            opened.read()
    with held.open("k") as opened:
        assert opened.read() == other


class BreakingOff(FakeS3):
    """Answers with bodies that end early, so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def get_object(self, **call: Any) -> dict[str, Any]:
        """An answer as S3 gives it, perhaps without its last byte."""
        answer = super().get_object(**call)
        body = answer["Body"].read()
        cut = body[: len(body) - (self.times > 0)]
        self.times -= 1
        return answer | {"Body": StreamingBody(io.BytesIO(cut), len(body))}


def test_an_answer_that_breaks_off_is_asked_for_again() -> None:
    held = bucket(BreakingOff(2))
    held.put("k", b"12345")
    assert held.get("k") == b"12345"
    for_ever = bucket(BreakingOff(100))
    for_ever.put("k", b"12345")
    with pytest.raises(StorageError, match="IncompleteReadError"):
        for_ever.get_range("k", 1, 3)


def test_what_is_opened_and_not_read_is_not_fetched() -> None:
    s3 = FakeS3()
    held = bucket(s3)
    held.put("k", bytes(10**6))
    with held.open("k") as opened:
        assert s3.gets == []
        opened.seek(-10, io.SEEK_END)
        assert opened.read(10) == bytes(10)
    assert s3.gets == [("k", range(10**6 - 10, 10**6))]


def test_an_object_that_cannot_be_read_on_is_a_storage_error() -> None:
    s3 = FakeS3()
    held = bucket(s3)
    held.put("k", bytes(10**6))
    with held.open("k") as opened:
        opened.read(1)
        s3.error = client_error("SlowDown")
        with pytest.raises(StorageError, match="S3 refused GetObject on s3://fake/k: SlowDown"):
            opened.read()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (client_error("NoSuchBucket"), "bucket fake does not exist: check the STOCKFLOW_"),
        (client_error("AccessDenied"), "S3 refused GetObject on s3://fake/k: AccessDenied"),
        (EndpointConnectionError(endpoint_url="http://x"), r"S3 at .* does not answer \(EndpointConnectionError\)"),
    ],
)
def test_every_failure_of_every_call_is_a_storage_error(call: Any, error: Exception, message: str) -> None:
    with pytest.raises(StorageError, match=message) as caught:
        call(failing(error))
    assert caught.value.__cause__ is error
    assert not isinstance(caught.value, ObjectMissing)


@pytest.mark.parametrize(
    ("variable", "value"), [("AWS_ENDPOINT_URL", "localhost:5000"), ("AWS_PROFILE", "nobody-has-this")]
)
def test_a_wrong_aws_variable_is_a_storage_error(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv(variable, value)
    with pytest.raises(StorageError, match=value):
        Bucket("any")


def test_each_answer_is_told_and_a_failure_is_none() -> None:
    told: list[int] = []
    s3 = FakeS3()
    held = Bucket("fake", s3, on_answer=lambda: told.append(1))
    held.put("k", b"0123")
    with held.open("k") as opened:
        opened.read(1)
    assert held.keys("") == ["k"]
    assert len(told) == 4
    s3.error = client_error("SlowDown")
    with pytest.raises(StorageError):
        held.get("k")
    assert len(told) == 4


def test_a_silent_s3_is_told_before_a_rank_that_waits_for_it_counts_as_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(boto3, "client", lambda service, config: made.append(config))
    Bucket("any")
    Bucket("any", patient=True)
    plain, patient = (one.retries["total_max_attempts"] * (one.connect_timeout + one.read_timeout) for one in made)
    assert plain < PATIENCE_S < TrainingSettings().stall_timeout_s
    assert plain < patient


def test_objects_are_listed_over_all_pages_in_order_and_after_a_key() -> None:
    held = bucket()
    for key in ("p/3", "p/1", "q/1", "p/5", "p/2", "p/4"):
        held.put(key, key.encode())
    assert held.keys("p/") == ["p/1", "p/2", "p/3", "p/4", "p/5"]
    assert held.keys("p/", "p/3") == ["p/4", "p/5"]
    assert held.keys("none/") == []
    assert [info.size_bytes for info in held.objects("q/")] == [3]


def test_a_table_comes_back_as_it_went() -> None:
    held, bars = bucket(), make_bars("AAPL", make_sessions(5)[0])
    put_table(held, "t", bars)
    assert get_table(held, "t").equals(bars)
    assert get_table(held, "t", ["close", "ticker"]).column_names == ["close", "ticker"]


def test_an_object_that_is_no_table_is_told_so() -> None:
    held = bucket()
    held.put("t", b"PAR0")
    with pytest.raises(StorageError, match="s3://fake/t is not a Parquet object"):
        get_table(held, "t")


def test_json_is_the_same_bytes_for_the_same_value() -> None:
    value = {"b": 1, "a": [date(2025, 11, 28), 0.1, None, "ž"]}
    assert to_json(value) == to_json(dict(value))
    held = bucket()
    held.put_json("j", value)
    assert held.get_json("j") == {"b": 1, "a": ["2025-11-28", 0.1, None, "ž"]}


def test_json_refuses_what_json_cannot_hold() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"loss": float("nan")})


def test_every_table_of_the_contract_has_an_arrow_schema() -> None:
    schema = arrow_schema(contract.PREDICTIONS)
    assert schema.names == [column.name for column in contract.PREDICTIONS]
    assert schema.field("as_of").type == pa.timestamp("ms", tz="UTC")
    assert arrow_schema(contract.BARS).field("volume").type == pa.int64()


def test_a_fingerprint_tells_apart_where_parts_end() -> None:
    assert fingerprint(b"ab", b"c") != fingerprint(b"a", b"bc")
    length = (2).to_bytes(8, "big")
    assert fingerprint(b"ab") == hashlib.sha256(length + b"ab").hexdigest()


def test_a_process_that_has_just_read_a_table_ends_with_its_own_status() -> None:
    code = (
        "import sys, pyarrow as pa; from app.tables import get_table, put_table;"
        "from tests.fakes import bucket; b = bucket();"
        "put_table(b, 'k', pa.table({'x': list(range(1000))})); get_table(b, 'k', ['x']); sys.exit(8)"
    )
    root = Path(__file__).parents[2]
    assert [subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode for _ in range(5)] == [8] * 5
