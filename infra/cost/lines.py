"""The lines of an estimate: what each phase of a run costs, and a month in which nothing runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app import contract
from infra.cost.prices import Price, Prices
from infra.cost.workload import (
    CLUSTER_DISK_GIB,
    DASHBOARDS,
    DATASET_GIB_PER_VCPU,
    FEED_GIB,
    FEED_VCPUS,
    FLEET_DISK_GIB,
    KEYS,
    LAMBDA_GIB,
    Workload,
)

HOURS_A_MONTH: Final = 730
_FREE_ALARM_METRICS, _FREE_DASHBOARDS, _FREE_LOGS_GB = 10, 3, 5
"""A month, in an account, for ever: https://aws.amazon.com/cloudwatch/pricing/"""
_LAMBDAS, _TRAINING_LAMBDAS = 6, 3
"""Called by an execution that succeeds."""
_LISTINGS_A_MICRO_BATCH, _PUTS_A_MICRO_BATCH = 2, 2
_INGEST_METRICS: Final = (contract.METRIC_COVERAGE, contract.METRIC_REQUESTS, contract.METRIC_RATE_LIMITED)
_OWN_DISK = ("ml.g4dn.", "ml.g5.", "ml.g6.")
"""Training types with a disk of their own, beside which SageMaker makes and bills no volume."""


@dataclass(frozen=True)
class Line:
    """One thing that is billed. note: what the quantity is made of, or why it is free."""

    phase: str
    what: str
    quantity: float
    price: Price
    note: str = ""

    @property
    def usd(self) -> float:
        """Quantity times price."""
        return self.quantity * self.price.usd


@dataclass(frozen=True)
class Bill:
    """Makes the lines of one deployment."""

    work: Workload
    prices: Prices

    def full_run(self) -> list[Line]:
        """All phases of one execution."""
        serve = self.serve(self.work.serving_h, starting=True)
        return [*self.ingest(), *self.dataset(), *self.train(), *serve, *self.workflow(_LAMBDAS)]

    def training_run(self) -> list[Line]:
        """An execution of {"phases": ["train"]}."""
        return [*self.train(), *self.workflow(_TRAINING_LAMBDAS)]

    def serving_hour(self) -> list[Line]:
        """One hour of a stream that is under way."""
        return self.serve(1.0, starting=False)

    def ingest(self) -> list[Line]:
        """The fleet, for as long as its instances are there.

        A shard lists what is held, reads the answers that are, then reads and writes its part of each session; the
        merge lists and reads all parts and writes one. S3 bills a listing like a write, and a deletion not at all.
        """
        work, fleet = self.work, self.work.deployment.ingestion
        count = work.fleet_instances
        hours = count * (work.assumed.instance_overhead_min * 60 + work.ingest_s) / 3600
        day_objects = len((contract.BARS_PREFIX, contract.ANSWERS_PREFIX)) * work.sessions
        puts = (work.shards + 1) * day_objects + work.journal_entries + work.shards + 3
        listings = 3 * work.shards + day_objects
        gets = work.shards * work.sessions + (2 * work.shards + 1) * day_objects + 2 * work.shards
        return [
            self._instances("ingest", "ec2", fleet.instance_type, count, hours, spot=fleet.spot),
            self._disk("ingest", FLEET_DISK_GIB, hours),
            *self._addresses("ingest", hours),
            *self._s3("ingest", puts=puts + listings, gets=gets),
            self._metrics("ingest", _INGEST_METRICS, 1),
        ]

    def dataset(self) -> list[Line]:
        """The dataset job."""
        work, vcpus = self.work, self.work.deployment.ingestion.dataset_vcpus
        hours = work.assumed.fargate_overhead_min / 60 + work.rows / work.assumed.dataset_rows_per_s / 3600
        return [
            *self._fargate("dataset", vcpus, vcpus * DATASET_GIB_PER_VCPU, hours),
            *self._s3("dataset", puts=work.sessions + 6, gets=work.sessions + work.shards),
        ]

    def train(self) -> list[Line]:
        """The training job: each instance is billed until the last one ends."""
        work, job = self.work, self.work.deployment.training
        job_h = (work.assumed.training_overhead_min * 60 + work.training_s) / 3600
        hours = job.instances * job_h
        volume_gib = 0 if job.instance_type.startswith(_OWN_DISK) else job.volume_gib
        volume = self._line("train", "disk", volume_gib * hours / HOURS_A_MONTH, "sagemaker-volume")
        puts = work.deployment.settings.training.epochs + 2 * len(contract.MODEL_FILES)
        return [
            self._instances("train", "sagemaker", job.instance_type, job.instances, hours, spot=job.spot),
            *([volume] if volume_gib else []),
            *self._s3("train", puts=puts, gets=10 * work.ranks),
            self._metrics("train", contract.TRAINING_METRICS, job_h),
        ]

    def serve(self, stream_h: float, *, starting: bool) -> list[Line]:
        """Cluster, stream and feed. A micro-batch for each object of the feed, so at most as many.

        starting: with the time that they take to start and to end. A cluster that is always on is in the month.
        """
        work, assumed = self.work, self.work.assumed
        cluster_h = stream_h + starting * assumed.cluster_overhead_min / 60
        feed_h = stream_h + starting * assumed.fargate_overhead_min / 60
        batches = assumed.session_min * stream_h / work.serving_h
        listings = work.polls_per_s * stream_h * 3600 + _LISTINGS_A_MICRO_BATCH * batches
        heads = stream_h * 3600 / work.deployment.settings.serving.poll_s
        return [
            *([] if work.deployment.always_on else self.cluster("serve", cluster_h)),
            *self._fargate("serve", FEED_VCPUS, FEED_GIB, feed_h),
            self._line("serve", "listings of ticks", listings, "s3-put", f"{work.polls_per_s:g} a second"),
            *self._s3("serve", puts=(1 + _PUTS_A_MICRO_BATCH) * batches, gets=batches + heads + 3 * work.shards),
            self._metrics("serve", contract.STREAM_METRICS, stream_h),
        ]

    def cluster(self, phase: str, hours: float) -> list[Line]:
        """The EMR cluster: EC2's price and EMR's on top of it."""
        kind, nodes = self.work.deployment.inference.instance_type, self.work.nodes
        return [
            self._instances(phase, "ec2", kind, nodes, nodes * hours),
            self._line(phase, f"EMR on {nodes} x {kind}", nodes * hours, "emr", kind=kind),
            self._disk(phase, CLUSTER_DISK_GIB, nodes * hours),
            *self._addresses(phase, nodes * hours),
        ]

    def workflow(self, lambdas: int) -> list[Line]:
        """What is between the phases."""
        assumed = self.work.assumed
        return [
            self._line("workflow", "state machine", assumed.transitions, "transition"),
            self._line("workflow", "Lambda calls", lambdas, "lambda-request"),
            self._line("workflow", "Lambda time", lambdas * assumed.lambda_s * LAMBDA_GIB, "lambda-memory"),
            self._line("workflow", "logs", assumed.log_mb / 1000, "log-ingest"),
            self._line("workflow", "traces", 1, "trace"),
        ]

    def idle_month(self) -> list[Line]:
        """A month in which nothing is started: what is billed for being there."""
        work, assumed = self.work, self.work.assumed
        always_on = self.cluster("month", HOURS_A_MONTH) if work.deployment.always_on else []
        history = f"{assumed.sessions_kept} days, {assumed.runs_kept} models"
        return [
            *always_on,
            self._line(
                "month",
                "key of the cluster's disks",
                KEYS * (1 + assumed.key_rotations),
                "key",
                f"rotated {assumed.key_rotations} times",
            ),
            self._line("month", "container images", assumed.images_gb, "image-storage", "2, compressed"),
            self._line("month", "objects", work.stored_gb, "s3-storage", history),
            self._beyond("alarms", work.alarm_metrics, _FREE_ALARM_METRICS, "alarm"),
            self._beyond("dashboard", DASHBOARDS, _FREE_DASHBOARDS, "dashboard"),
            self._beyond("logs kept", assumed.logs_kept_gb, _FREE_LOGS_GB, "log-storage"),
            *([] if always_on else [self._line("month", "flow logs", 0, "log-ingest", "nothing flows")]),
        ]

    def _line(self, phase: str, what: str, quantity: float, price: str, note: str = "", kind: str = "") -> Line:
        return Line(phase, what, quantity, self.prices.find(price, kind), note)

    def _beyond(self, what: str, quantity: float, free: float, price: str) -> Line:
        note = f"{quantity:g}; {free} are free for ever"
        return self._line("month", what, max(0.0, quantity - free), price, note)

    def _instances(self, phase: str, price: str, kind: str, count: int, hours: float, *, spot: bool = False) -> Line:
        discount = self.work.assumed.spot_discount if spot else 0.0
        note = f"Spot, {discount:.0%} less" if spot else ""
        return Line(phase, f"{count} x {kind}", hours, self.prices.find(price, kind).reduced(discount), note)

    def _disk(self, phase: str, gib: int, hours: float) -> Line:
        return self._line(phase, "disks", gib * hours / HOURS_A_MONTH, "disk", f"{gib} GB an instance")

    def _addresses(self, phase: str, hours: float) -> Sequence[Line]:
        logged_gb = hours * self.work.assumed.flow_log_mb_per_hour / 1000
        return (
            self._line(phase, "public addresses", hours, "address"),
            self._line(phase, "flow logs", logged_gb, "log-ingest"),
        )

    def _fargate(self, phase: str, vcpus: int, gib: int, hours: float) -> Sequence[Line]:
        return (
            self._line(phase, f"Fargate, {vcpus} vCPU", vcpus * hours, "fargate-vcpu"),
            self._line(phase, f"Fargate, {gib} GB", gib * hours, "fargate-memory"),
            *self._addresses(phase, hours),
        )

    def _s3(self, phase: str, *, puts: float, gets: float) -> Sequence[Line]:
        return (self._line(phase, "S3 writes", puts, "s3-put"), self._line(phase, "S3 reads", gets, "s3-get"))

    def _metrics(self, phase: str, names: Sequence[str], hours: float) -> Line:
        """Billed for each hour in which a metric has a value."""
        months = len(names) * math.ceil(hours) / HOURS_A_MONTH
        return self._line(phase, "metrics", months, "metric", f"{len(names)} metrics")
