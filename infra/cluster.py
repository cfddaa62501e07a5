"""One EMR cluster in two spellings: CreateCluster's parameters for an execution, a resource where it stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aws_cdk import CfnTag
from aws_cdk import aws_emr as emr
from constructs import Construct

from infra.network import MANAGED_BY_EMR
from infra.settings import InferenceSettings
from infra.tagging import task_tags

_ROOT_GIB = 32
_DATA_GIB = 64
_APPLICATIONS = ("Spark",)


@dataclass(frozen=True)
class Cluster:
    """What the cluster is made of. Names, ids and the log URI as CloudFormation's tokens."""

    deployment: str
    settings: InferenceSettings
    service_role: str
    instance_profile: str
    security_configuration: str
    log_uri: str
    subnet: str
    security_group: str

    def parameters(self) -> dict[str, Any]:
        """For elasticmapreduce:createCluster; the caller adds a name."""
        return {
            "ReleaseLabel": self.settings.release,
            "Applications": [{"Name": name} for name in _APPLICATIONS],
            "LogUri": self.log_uri,
            "ServiceRole": self.service_role,
            "JobFlowRole": self.instance_profile,
            "SecurityConfiguration": self.security_configuration,
            "EbsRootVolumeSize": _ROOT_GIB,
            "VisibleToAllUsers": True,
            "AutoTerminationPolicy": {"IdleTimeout": self.settings.idle_timeout_min * 60},
            "Instances": {
                "KeepJobFlowAliveWhenNoSteps": True,
                "TerminationProtected": False,
                "Ec2SubnetId": self.subnet,
                "EmrManagedMasterSecurityGroup": self.security_group,
                "EmrManagedSlaveSecurityGroup": self.security_group,
                "InstanceGroups": [
                    self._group("MASTER", 1),
                    self._group("CORE", self.settings.core_instances),
                ],
            },
            "Tags": [
                *({"Key": key, "Value": value} for key, value in MANAGED_BY_EMR.items()),
                *task_tags(self.deployment, "serve"),
            ],
        }

    def create(self, scope: Construct, name: str) -> emr.CfnCluster:
        """A cluster that stays until the stack goes."""
        kinds = emr.CfnCluster
        instances = kinds.JobFlowInstancesConfigProperty(
            keep_job_flow_alive_when_no_steps=True,
            termination_protected=False,
            ec2_subnet_id=self.subnet,
            emr_managed_master_security_group=self.security_group,
            emr_managed_slave_security_group=self.security_group,
            master_instance_group=self._resource_group("primary", 1),
            core_instance_group=self._resource_group("core", self.settings.core_instances),
        )
        return kinds(
            scope,
            "Cluster",
            name=name,
            release_label=self.settings.release,
            applications=[kinds.ApplicationProperty(name=application) for application in _APPLICATIONS],
            log_uri=self.log_uri,
            service_role=self.service_role,
            job_flow_role=self.instance_profile,
            security_configuration=self.security_configuration,
            ebs_root_volume_size=_ROOT_GIB,
            visible_to_all_users=True,
            instances=instances,
            tags=[CfnTag(key=key, value=value) for key, value in MANAGED_BY_EMR.items()],
        )

    def _group(self, role: str, count: int) -> dict[str, Any]:
        return {
            "InstanceRole": role,
            "InstanceType": self.settings.instance_type,
            "InstanceCount": count,
            "Market": "ON_DEMAND",
            "EbsConfiguration": {
                "EbsBlockDeviceConfigs": [{"VolumeSpecification": {"VolumeType": "gp3", "SizeInGB": _DATA_GIB}}]
            },
        }

    def _resource_group(self, name: str, count: int) -> emr.CfnCluster.InstanceGroupConfigProperty:
        kinds = emr.CfnCluster
        disk = kinds.EbsBlockDeviceConfigProperty(
            volume_specification=kinds.VolumeSpecificationProperty(volume_type="gp3", size_in_gb=_DATA_GIB)
        )
        return kinds.InstanceGroupConfigProperty(
            name=name,
            instance_type=self.settings.instance_type,
            instance_count=count,
            market="ON_DEMAND",
            ebs_configuration=kinds.EbsConfigurationProperty(ebs_block_device_configs=[disk]),
        )
