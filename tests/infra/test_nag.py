"""The AwsSolutions rules: what they find, and the reasons that stand against it."""

from __future__ import annotations

from pathlib import Path

import pytest
from aws_cdk import App, Stack
from aws_cdk import aws_s3 as s3

from infra import nag


def test_no_finding_of_the_shared_constructs_lacks_a_reason(shared_folder: Path) -> None:
    report = nag.read_report(shared_folder)
    assert report.open == ()
    assert report.idle == ()
    assert all(len(reason) > 40 and reason.endswith(".") for reason in report.reasons.values())


def test_a_grant_in_another_stack_than_its_bucket_states_its_reason(shared_folder: Path) -> None:
    across = [place for place in nag.read_report(shared_folder).reasons if place.startswith("Reader/")]
    assert len(across) == 3
    assert all("[Resource::Kept:ExportsOutput" in place and place.endswith("/bars/*]") for place in across)


def test_a_finding_without_a_reason_ends_the_synth(tmp_path: Path) -> None:
    app = App(outdir=str(tmp_path))
    nag.check(app)
    stack = Stack(app, "Bare")
    bucket = s3.Bucket(stack, "Bucket")
    nag.acknowledge(bucket, "AwsSolutions-S10", "Holds nothing.")
    nag.acknowledge(bucket, "AwsSolutions-L1", "There is no function here.")
    with pytest.raises(RuntimeError, match="AwsSolutions-S1'"):
        app.synth()
    report = nag.read_report(tmp_path)
    assert report.open == ("Bare/Bucket/Resource AwsSolutions-S1",)
    assert report.reasons == {"Bare/Bucket AwsSolutions::AwsSolutions-S10": "Holds nothing."}
    assert report.idle == ("Bare/Bucket AwsSolutions::AwsSolutions-L1",)
