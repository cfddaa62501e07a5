"""What a cluster is made of: its role, its disks, the place of its logs, and the instances that moto keeps for it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from moto.core.utils import utcnow
from moto.iam.exceptions import NotFoundException
from moto.iam.models import iam_backends

from embedded.aws.account import PARTITION, Credentials, client
from embedded.aws.cluster.logs import LogStore
from embedded.aws.host import Host
from embedded.aws.iam.trust import NotTrusted

_PRINCIPAL = "ec2.amazonaws.com"


@dataclass(frozen=True)
class Reason:
    """Why a cluster ends; failed: whether it is TERMINATED_WITH_ERRORS then."""

    code: str
    message: str
    failed: bool = False


class Unable(Exception):
    """The cluster cannot be started."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.reason = Reason(code, message, failed=True)


@dataclass(frozen=True)
class Nodes:
    """What a cluster's nodes have. folder: their disks; store: None where the cluster keeps no logs."""

    cluster_id: str
    folder: Path
    credentials: Credentials
    store: LogStore | None

    @property
    def hdfs(self) -> Path:
        """Stands for the cluster's own file system, and lives as long as the cluster."""
        return self.folder / "hdfs"


def start_nodes(host: Host, cluster: Any, folder: Path) -> None:
    """Make the nodes of one of moto's clusters, with the rights of its instance profile; Unable when that fails."""
    nodes = sign_in(host, cluster, folder)
    _read_certificates(cluster, client("s3", host.endpoint, nodes.credentials))
    nodes.hdfs.mkdir(parents=True)


def sign_in(host: Host, cluster: Any, folder: Path) -> Nodes:
    """The nodes with fresh credentials, which may last less long than the cluster; Unable when there are none."""
    profile = cluster.role.rpartition("/")[2]
    try:
        roles = iam_backends[cluster.emr_backend.account_id][PARTITION].get_instance_profile(profile).roles
    except NotFoundException:
        roles = []
    if not roles:
        raise Unable("VALIDATION_ERROR", f"Invalid InstanceProfile: {profile}.")
    try:
        credentials = host.credentials(roles[0].arn, cluster.id, _PRINCIPAL)
    except NotTrusted as exc:
        raise Unable("VALIDATION_ERROR", f"Invalid InstanceProfile: {profile}. {exc}") from exc
    store = LogStore.at(cluster.log_uri, cluster.id, host.endpoint, credentials) if cluster.log_uri else None
    return Nodes(cluster.id, folder, credentials, store)


def release(cluster: Any) -> None:
    """Give back the instances that moto has started for the cluster."""
    instances = [instance.ec2_instance_id for instance in cluster.ec2_instances]
    if instances:
        cluster.emr_backend.ec2_backend.terminate_instances(instances)
    for group in cluster.instance_groups:
        group.state, group.end_date_time = "TERMINATED", utcnow()


def _read_certificates(cluster: Any, s3: Any) -> None:
    """Read, as the nodes do, the certificates that a security configuration names: to see that they can be read."""
    configuration = cluster.emr_backend.security_configurations.get(cluster.security_configuration)
    if configuration is None:
        return
    held = configuration.security_configuration
    read = json.loads(held) if isinstance(held, str) else held
    in_transit = read.get("EncryptionConfiguration", {}).get("InTransitEncryptionConfiguration", {})
    url = in_transit.get("TLSCertificateConfiguration", {}).get("S3Object", "")
    place = url.removeprefix("arn:aws:s3:::") if url.startswith("arn:") else url.partition("://")[2]
    if place:
        bucket, _, key = place.partition("/")
        try:
            s3.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")["Body"].close()
        except (ClientError, BotoCoreError) as exc:
            raise Unable("BOOTSTRAP_FAILURE", f"The nodes cannot read the certificates {url}: {exc}") from exc
