"""Where instances run: public subnets without a NAT gateway, which nothing can reach from outside."""

from __future__ import annotations

from typing import Final

from aws_cdk import Tags
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from infra.log_group import log_group

MANAGED_BY_EMR: Final = {"for-use-with-amazon-emr-managed-policies": "true"}
"""Tags without which AmazonEMRServicePolicy_v2 does not let EMR use a subnet, a group or a cluster's instances."""
_HTTPS = 443
_FLOW_LOG_DAYS = 7


class Network(Construct):
    """VPC over two zones and the security groups of what runs in it.

    jobs: the Batch jobs; out by HTTPS only. Amazon's DNS, clock and metadata need no rule.
    emr: the instances of an EMR cluster, the primary one and the others.

    No rule of the template lets anything in; when a cluster starts in a public subnet, EMR itself opens port 8443 of
    its group to its own service's addresses. There is no NAT gateway, which would cost more in an idle month than all
    else: instances have public addresses to go out by, and S3 is reached by a gateway endpoint, free of charge.
    """

    def __init__(self, scope: Construct, id: str) -> None:
        super().__init__(scope, id)
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            max_azs=2,
            nat_gateways=0,
            subnet_configuration=[
                ec2.SubnetConfiguration(name="Public", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=20)
            ],
            gateway_endpoints={"S3": ec2.GatewayVpcEndpointOptions(service=ec2.GatewayVpcEndpointAwsService.S3)},
            # Emptying the default group takes a Lambda function. Nothing joins that group, and it admits members only.
            restrict_default_security_group=False,
        )
        self._log_flows()
        self.jobs = ec2.SecurityGroup(
            self, "Jobs", vpc=self.vpc, description="Batch jobs: HTTPS out, nothing in", allow_all_outbound=False
        )
        self.jobs.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(_HTTPS), "AWS, Yahoo, image registries")
        # EMR writes the rules between its instances itself, when a cluster starts, and leaves them behind. Two groups
        # would then refer to each other and neither could be deleted; a group that refers to itself can be.
        self.emr = ec2.SecurityGroup(self, "Emr", vpc=self.vpc, description="Instances of EMR clusters")
        for key, value in MANAGED_BY_EMR.items():
            Tags.of(self.emr).add(key, value)
            Tags.of(self.vpc).add(key, value, include_resource_types=["AWS::EC2::Subnet"])

    def _log_flows(self) -> None:
        group = log_group(self, "FlowLogs", days=_FLOW_LOG_DAYS)
        self.vpc.add_flow_log("Flows", destination=ec2.FlowLogDestination.to_cloud_watch_logs(group))
