"""Networks: EC2."""

from __future__ import annotations

from typing import Any, Final

from embedded.aws.deployment.parameters import check_known
from embedded.aws.deployment.resources import Made, Rule, Wanted

_PORTS: Final = ("IpProtocol", "FromPort", "ToPort")
_RANGE: Final = ("CidrIp", "Description")
_ANYWHERE: Final = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}


def _tagged(wanted: Wanted) -> Any:
    made = wanted.by_moto()
    if "Tags" in wanted.properties:
        tags = wanted.properties["Tags"]
        wanted.api.call("ec2", "create_tags", {"Resources": [made.physical_resource_id], "Tags": tags})
    return made


def _vpc(wanted: Wanted) -> Any:
    made = wanted.by_moto()
    for name in ("EnableDnsSupport", "EnableDnsHostnames"):
        if name in wanted.properties:
            value = {name: {"Value": wanted.properties[name]}}
            wanted.api.call("ec2", "modify_vpc_attribute", {"VpcId": made.physical_resource_id, **value})
    return made


def _subnet(wanted: Wanted) -> Any:
    made = wanted.by_moto()
    if "MapPublicIpOnLaunch" in wanted.properties:
        value = {"MapPublicIpOnLaunch": {"Value": wanted.properties["MapPublicIpOnLaunch"]}}
        wanted.api.call("ec2", "modify_subnet_attribute", {"SubnetId": made.physical_resource_id, **value})
    return made


def _security_group(wanted: Wanted) -> Any:
    made = wanted.by_moto()
    group = {"GroupId": made.physical_resource_id}
    if "SecurityGroupEgress" in wanted.properties:
        wanted.api.call("ec2", "revoke_security_group_egress", {**group, "IpPermissions": [_ANYWHERE]})
        for rule in wanted.properties["SecurityGroupEgress"]:
            check_known(rule, (*_PORTS, *_RANGE), "SecurityGroupEgress")
            ports = {name: rule[name] for name in _PORTS if name in rule}
            to = {name: rule[name] for name in _RANGE if name in rule}
            allowed = {**group, "IpPermissions": [{**ports, "IpRanges": [to]}]}
            wanted.api.call("ec2", "authorize_security_group_egress", allowed)
    return made


def _route_table_association(wanted: Wanted) -> Made:
    identifier = wanted.api.call("ec2", "associate_route_table", wanted.properties)["AssociationId"]
    return Made(identifier, {"Id": identifier})


RULES: Final = (
    Rule("ec2-vpc", "AWS::EC2::VPC", "DNS settings are lost", _vpc),
    Rule("ec2-subnet", "AWS::EC2::Subnet", "public addresses are not given", _subnet),
    Rule("ec2-security-group", "AWS::EC2::SecurityGroup", "egress rules are lost: all is allowed", _security_group),
    Rule("ec2-internet-gateway", "AWS::EC2::InternetGateway", "tags are lost", _tagged),
    Rule("ec2-route-table", "AWS::EC2::RouteTable", "tags are lost", _tagged),
    Rule(
        "ec2-route-table-association",
        "AWS::EC2::SubnetRouteTableAssociation",
        "the route table does not know of it",
        _route_table_association,
    ),
    Rule("ec2-vpc-endpoint", "AWS::EC2::VPCEndpoint", "tags are lost", _tagged),
)
