"""Where instances run, and what can reach them: nothing."""

from __future__ import annotations

from typing import Any

from infra.network import MANAGED_BY_EMR
from tests.infra.templates import Template, only, resources

GROUP = "AWS::EC2::SecurityGroup"


def groups(network: Template) -> dict[str, dict[str, Any]]:
    """Security groups by the first word of their description."""
    return {group["GroupDescription"].split()[0]: group for group in resources(network, GROUP).values()}


def tags(resource: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in resource.get("Tags", ())}


def test_no_nat_gateway_costs_money_while_idle(network: Template) -> None:
    kinds = {resource["Type"] for resource in network["Resources"].values()}
    assert kinds.isdisjoint({"AWS::EC2::NatGateway", "AWS::EC2::EIP", "AWS::EC2::Instance"})
    endpoint = only(network, "AWS::EC2::VPCEndpoint")
    assert endpoint["VpcEndpointType"] == "Gateway"  # an interface endpoint is billed by the hour


def test_no_inbound_rule_anywhere(network: Template) -> None:
    assert not resources(network, "AWS::EC2::SecurityGroupIngress")
    assert all("SecurityGroupIngress" not in group for group in resources(network, GROUP).values())


def test_jobs_go_out_by_https_only(network: Template) -> None:
    (rule,) = groups(network)["Batch"]["SecurityGroupEgress"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 443, 443)
    assert not resources(network, "AWS::EC2::SecurityGroupEgress")


def test_two_zones_of_public_subnets_reach_s3_without_the_internet(network: Template) -> None:
    subnets = resources(network, "AWS::EC2::Subnet").values()
    assert [subnet["MapPublicIpOnLaunch"] for subnet in subnets] == [True, True]
    assert [subnet["AvailabilityZone"]["Fn::Select"][0] for subnet in subnets] == [0, 1]
    endpoint = only(network, "AWS::EC2::VPCEndpoint")
    assert str(endpoint["ServiceName"]).count(".s3") == 1
    assert len(endpoint["RouteTableIds"]) == len(resources(network, "AWS::EC2::RouteTable")) == 2


def test_emr_may_use_the_subnets_and_its_group_but_not_the_group_of_jobs(network: Template) -> None:
    for resource in (groups(network)["Instances"], *resources(network, "AWS::EC2::Subnet").values()):
        assert tags(resource).items() >= MANAGED_BY_EMR.items()
    assert tags(groups(network)["Batch"]).keys().isdisjoint(MANAGED_BY_EMR)


def test_emr_has_one_group_so_that_none_keeps_another_from_being_deleted(network: Template) -> None:
    assert groups(network).keys() == {"Batch", "Instances"}


def test_flows_are_logged_for_a_week(network: Template) -> None:
    assert only(network, "AWS::EC2::FlowLog")["TrafficType"] == "ALL"
    assert only(network, "AWS::Logs::LogGroup")["RetentionInDays"] == 7


def test_the_network_needs_no_function_of_its_own(network: Template) -> None:
    assert not resources(network, "AWS::Lambda::Function")
