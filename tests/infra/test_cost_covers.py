"""The estimate knows every resource of the templates, and their sizes."""

from __future__ import annotations

from typing import Any

import pytest

from infra.cluster import Cluster
from infra.cost import workload
from infra.cost.assumptions import Assumptions
from infra.cost.resources import FREE, PRICED
from infra.settings import InferenceSettings
from tests.infra.synthesised import Synthesised
from tests.infra.templates import resources


class Stacks:
    """All templates of one deployment."""

    def __init__(self, app: Synthesised) -> None:
        self.work = workload.Workload(app.deployment, Assumptions())
        self._templates = (app.data, app.compute)

    def types(self) -> set[str]:
        return {resource["Type"] for template in self._templates for resource in template["Resources"].values()}

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [found for template in self._templates for found in resources(template, kind).values()]


@pytest.fixture
def stacks(any_app: Synthesised) -> Stacks:
    return Stacks(any_app)


def test_every_resource_is_priced_or_free_for_a_reason(stacks: Stacks) -> None:
    assert not stacks.types() - PRICED.keys() - FREE.keys(), "list them in infra/cost/resources.py"
    assert not PRICED.keys() & FREE.keys()
    assert all(FREE.values())


def test_no_endpoint_is_billed_by_the_hour(stacks: Stacks) -> None:
    assert {endpoint["VpcEndpointType"] for endpoint in stacks.all("AWS::EC2::VPCEndpoint")} == {"Gateway"}


def test_what_a_month_is_billed_for_is_counted_as_deployed(stacks: Stacks) -> None:
    watched = sum(
        sum("MetricStat" in metric for metric in alarm.get("Metrics", ())) or 1
        for alarm in stacks.all("AWS::CloudWatch::Alarm")
    )
    assert stacks.work.alarm_metrics == watched
    assert len(stacks.all("AWS::KMS::Key")) == workload.KEYS
    assert len(stacks.all("AWS::CloudWatch::Dashboard")) == workload.DASHBOARDS


def test_jobs_disks_and_functions_have_the_sizes_that_are_billed(stacks: Stacks) -> None:
    assert _disks(stacks) == {workload.FLEET_DISK_GIB}
    vcpus = stacks.work.deployment.ingestion.dataset_vcpus
    dataset = (vcpus, vcpus * workload.DATASET_GIB_PER_VCPU)
    assert _fargate_sizes(stacks) == {dataset, (workload.FEED_VCPUS, workload.FEED_GIB)}
    sizes = {function.get("MemorySize") for function in stacks.all("AWS::Lambda::Function")}
    assert workload.LAMBDA_GIB * 1024 in sizes


def test_a_node_of_the_cluster_has_the_disks_that_are_billed() -> None:
    parameters = Cluster("", InferenceSettings(), "", "", "", "", "", "").parameters()
    root = parameters["EbsRootVolumeSize"]
    for group in parameters["Instances"]["InstanceGroups"]:
        disks = group["EbsConfiguration"]["EbsBlockDeviceConfigs"]
        assert root + sum(disk["VolumeSpecification"]["SizeInGB"] for disk in disks) == workload.CLUSTER_DISK_GIB


def _disks(stacks: Stacks) -> set[int]:
    return {
        disk["Ebs"]["VolumeSize"]
        for template in stacks.all("AWS::EC2::LaunchTemplate")
        for disk in template["LaunchTemplateData"]["BlockDeviceMappings"]
    }


def _fargate_sizes(stacks: Stacks) -> set[tuple[float, float]]:
    """(vCPUs, GiB) of the Fargate jobs."""
    jobs = [job for job in stacks.all("AWS::Batch::JobDefinition") if job["PlatformCapabilities"] == ["FARGATE"]]
    asked = [
        {need["Type"]: float(need["Value"]) for need in job["ContainerProperties"]["ResourceRequirements"]}
        for job in jobs
    ]
    return {(need["VCPU"], need["MEMORY"] / 1024) for need in asked}
