"""Machines: Auto Scaling, EMR."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from embedded.aws.deployment.resources import Made, Rule, Wanted

_GROUP_METRICS: Final = tuple(
    f"Group{counted}"
    for counted in (
        *("MinSize", "MaxSize", "DesiredCapacity", "InServiceInstances", "PendingInstances", "StandbyInstances"),
        *("TerminatingInstances", "TotalInstances"),
    )
)
"""What is collected where a template names no metrics."""


def _group(wanted: Wanted) -> Made:
    name = wanted.named("AutoScalingGroupName")
    properties = wanted.properties.without("MetricsCollection", "VPCZoneIdentifier")
    if "VPCZoneIdentifier" in wanted.properties:
        properties["VPCZoneIdentifier"] = ",".join(wanted.properties["VPCZoneIdentifier"])
    wanted.api.call("autoscaling", "create_auto_scaling_group", {**properties, "AutoScalingGroupName": name})
    for metrics in wanted.properties.get("MetricsCollection", ()):
        named = {"Metrics": _GROUP_METRICS, **metrics, "AutoScalingGroupName": name}
        wanted.api.call("autoscaling", "enable_metrics_collection", named)
    return Made(name)


_GROUPS: Final = {"MasterInstanceGroup": "MASTER", "CoreInstanceGroup": "CORE"}
_FLEETS: Final = {"MasterInstanceFleet": "MASTER", "CoreInstanceFleet": "CORE"}


def _cluster(wanted: Wanted) -> Made:
    instances = dict(wanted.properties["Instances"])
    groups = [{**instances.pop(name), "InstanceRole": role} for name, role in _GROUPS.items() if name in instances]
    groups += [{**group, "InstanceRole": "TASK"} for group in instances.pop("TaskInstanceGroups", ())]
    fleets = [{**instances.pop(name), "InstanceFleetType": role} for name, role in _FLEETS.items() if name in instances]
    fleets += [{**fleet, "InstanceFleetType": "TASK"} for fleet in instances.pop("TaskInstanceFleets", ())]
    if groups:
        instances["InstanceGroups"] = groups
    if fleets:
        instances["InstanceFleets"] = fleets
    properties = wanted.properties.without("Configurations", "Instances") | {"Instances": instances}
    if "Configurations" in wanted.properties:
        properties["Configurations"] = list(_configurations(wanted.properties["Configurations"]))
    identifier = wanted.api.call("emr", "run_job_flow", properties)["JobFlowId"]
    return Made(identifier, {"Id": identifier})


def _configurations(written: list[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for configuration in written:
        said = dict(configuration)
        if "ConfigurationProperties" in said:
            said["Properties"] = said.pop("ConfigurationProperties")
        if "Configurations" in said:
            said["Configurations"] = list(_configurations(said["Configurations"]))
        yield said


def _security_configuration(wanted: Wanted) -> Made:
    name = wanted.named("Name")
    wanted.api.call("emr", "create_security_configuration", {**wanted.properties, "Name": name})
    return Made(name)


RULES: Final = (
    Rule("autoscaling-group", "AWS::AutoScaling::AutoScalingGroup", "metrics are not collected", _group),
    Rule(
        "emr-cluster", "AWS::EMR::Cluster", "instance groups, applications, security configuration are lost", _cluster
    ),
    Rule(
        "emr-security-configuration",
        "AWS::EMR::SecurityConfiguration",
        "it is kept as something that its API cannot answer with",
        _security_configuration,
    ),
)
