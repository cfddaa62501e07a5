"""Every setting of a deployment: typed and frozen. infra.context reads them from the CDK's context."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Literal, get_args

import botocore.loaders
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from app.settings import Settings

_EC2_TYPE = r"^[a-z][a-z0-9-]*\.(large|xlarge|[0-9]+xlarge)$"
_BURSTABLE = re.compile(r"^t\d")
_ARM = re.compile(r"^(a1|[a-z]+\d[a-z]*g[a-z]*)\.")
_RETIRED_TRAINING = re.compile(r"^(ml\.)?(g3s?)\.(.+)$")
_GIB_PER_VCPU = {"c": 2, "r": 8, "x": 16}
"""Memory by the first letter of a type; others, t and m among them, have 4."""
_MEMORY_FOR_JOBS = 0.9
"""The rest is the system's and the ECS agent's."""
_MEMORY_FOR_YARN = 0.7
DRIVER_GIB = 4
"""Of Spark's driver, half of it heap."""
_STAND_INS = {"1": "ml.g4dn.xlarge (1 GPU)", "2": "ml.g4dn.12xlarge (4 GPUs) with training.processes=2"}


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StorageSettings(_Group):
    """The buckets."""

    tick_days: Annotated[int, Field(ge=1, le=3650, description="days after which ticks are deleted")] = 7
    predictions_days: Annotated[
        int, Field(ge=0, le=3650, description="days after which predictions are deleted; 0 keeps them")
    ] = 0
    consumer_principals: Annotated[
        tuple[str, ...], Field(description="ARNs that may assume the consumer role; empty means this account")
    ] = ()


class _InstanceSettings(_Group):
    """Settings of a fleet of one EC2 type."""

    instance_type: str

    @field_validator("instance_type")
    @classmethod
    def _is_x86(cls, value: str) -> str:
        if _ARM.match(value):
            raise ValueError("an ARM type, and what runs here is built for x86-64: name one such as m6i.2xlarge")
        return value

    @property
    def vcpus(self) -> int:
        """vCPUs of one instance, by the size in its name: large 2, xlarge 4, Nxlarge 4 N."""
        size = self.instance_type.rpartition(".")[2]
        return 2 if size == "large" else 4 * int(size.removesuffix("xlarge") or 1)

    @property
    def gib_per_vcpu(self) -> int:
        """Memory of one instance by vCPU, by the first letter of its type."""
        return _GIB_PER_VCPU.get(self.instance_type[0], 4)


class IngestionSettings(_InstanceSettings):
    """The Batch fleet of phase I, and the Fargate jobs beside it."""

    instance_type: Annotated[
        str, Field(pattern=_EC2_TYPE, description="EC2 type of the fleet; a t type gets an unmanaged environment")
    ] = "t2.2xlarge"
    spot: Annotated[bool, Field(description="Spot instances; not with a t type")] = False
    max_instances: Annotated[int, Field(ge=1, le=100, description="width of the fleet")] = 4
    shard_vcpus: Annotated[int, Field(ge=1, le=16, description="vCPUs of one shard's job: one process")] = 1
    shard_memory_mib: Annotated[int, Field(ge=512, le=60_000, description="memory of one shard's job")] = 3072
    attempts: Annotated[int, Field(ge=1, le=10, description="tries of a job whose failure may pass")] = 3
    timeout_min: Annotated[int, Field(ge=1, le=1440, description="limit of one try of an ingest or dataset job")] = 60
    dataset_vcpus: Annotated[
        Literal[1, 2, 4, 8], Field(description="Fargate vCPUs of the dataset job, 4 GiB of memory each")
    ] = 4

    @model_validator(mode="after")
    def _spot_is_managed(self) -> IngestionSettings:
        if self.spot and not self.managed:
            raise ValueError(
                f"ingestion.spot=true needs a type that Batch manages, not {self.instance_type}: name m6i.2xlarge"
            )
        if not self.jobs_per_instance:
            raise ValueError(
                f"no shard of ingestion.shard_vcpus={self.shard_vcpus} and shard_memory_mib={self.shard_memory_mib}"
                f" fits on {self.instance_type}: lower them or name a larger type"
            )
        return self

    @property
    def managed(self) -> bool:
        """Whether Batch manages instances of this type: it refuses the burstable ones."""
        return not _BURSTABLE.match(self.instance_type)

    @property
    def jobs_per_instance(self) -> int:
        """Shards that one instance works on at the same time, by its vCPUs and its memory."""
        memory_mib = int(self.vcpus * self.gib_per_vcpu * 1024 * _MEMORY_FOR_JOBS)
        return min(self.vcpus // self.shard_vcpus, memory_mib // self.shard_memory_mib)


class TrainingSettings(_Group):
    """The SageMaker jobs of phase II; an execution may ask for other instances."""

    instance_type: Annotated[str, Field(description="SageMaker training instance type")] = "ml.g4dn.xlarge"
    instances: Annotated[int, Field(ge=1, le=4, description="nodes")] = 1
    processes: Annotated[int, Field(ge=1, le=8, description="MPI ranks of a node: one for each GPU")] = 1
    spot: Annotated[bool, Field(description="managed Spot; an interrupted job goes on from its checkpoint")] = False
    max_runtime_min: Annotated[int, Field(ge=5, le=7200, description="limit of a job")] = 120
    volume_gib: Annotated[int, Field(ge=1, le=1024, description="encrypted disk of a node")] = 50
    encrypt_traffic: Annotated[bool, Field(description="encrypt what the nodes of a job send each other")] = True
    base_image: Annotated[
        str,
        Field(description="image with TensorFlow, CUDA and Open MPI that Horovod is built on; empty: the Dockerfile's"),
    ] = ""

    @field_validator("instance_type")
    @classmethod
    def _is_offered(cls, value: str) -> str:
        if retired := _RETIRED_TRAINING.match(value):
            gpus = "1" if retired[3] in {"xlarge", "4xlarge"} else "2"
            raise ValueError(
                f"{retired[2]} was never a SageMaker training type, and EC2 retired it by October 2025:"
                f" the nearest stand-in is {_STAND_INS[gpus]}"
            )
        if value not in training_instance_types():
            near = [name for name in training_instance_types() if name.startswith(("ml.g4dn.", "ml.g5.", "ml.g6."))]
            raise ValueError(
                f"not among the training instance types of SageMaker's API: name one of {', '.join(near)}, ..."
            )
        return value


class BatchTrainingSettings(_InstanceSettings):
    """Phase II as multi-node parallel jobs of AWS Batch, beside the SageMaker jobs."""

    nodes: Annotated[int, Field(ge=0, le=4, description="most nodes of a Batch training job; 0 makes no such jobs")] = 0
    instance_type: Annotated[str, Field(pattern=_EC2_TYPE, description="EC2 type of the nodes")] = "g4dn.xlarge"
    gpus: Annotated[int, Field(ge=0, le=8, description="GPUs of a node that a job uses, an MPI rank each; 0: CPU")] = 1

    @field_validator("instance_type")
    @classmethod
    def _is_managed(cls, value: str) -> str:
        if retired := _RETIRED_TRAINING.match(value):
            raise ValueError(
                f"{retired[2]} was retired by October 2025: the nearest stand-in is g4dn.xlarge (1 GPU),"
                " or g4dn.12xlarge (4 GPUs) with batch_training.gpus=2"
            )
        if _BURSTABLE.match(value):
            raise ValueError("no t type is managed by Batch: name g4dn.xlarge, or m6i.xlarge with gpus=0")
        return value

    @property
    def memory_mib(self) -> int:
        """Of a node's container: all that is not the system's."""
        return int(self.vcpus * self.gib_per_vcpu * 1024 * _MEMORY_FOR_JOBS)


class InferenceSettings(_InstanceSettings):
    """The EMR cluster of phase III."""

    release: Annotated[str, Field(pattern=r"^emr-[a-z0-9.-]+$", description="EMR release label")] = "emr-spark-8.0.0"
    instance_type: Annotated[str, Field(pattern=_EC2_TYPE, description="EC2 type of all nodes")] = "m5.2xlarge"
    core_instances: Annotated[int, Field(ge=1, le=20, description="nodes beside the primary one")] = 1
    idle_timeout_min: Annotated[
        int, Field(ge=1, le=10_080, description="a cluster without a step for so long ends by itself")
    ] = 30
    stream_timeout_min: Annotated[int, Field(ge=5, le=1440, description="limit of one stream and its feed")] = 600

    @field_validator("instance_type")
    @classmethod
    def _is_not_burstable(cls, value: str) -> str:
        if _BURSTABLE.match(value):
            raise ValueError("no t type is offered by EMR: m5.2xlarge is the nearest to t2.2xlarge (8 vCPUs, 32 GiB)")
        return value

    @model_validator(mode="after")
    def _holds_driver_and_executor(self) -> InferenceSettings:
        asked_gib = DRIVER_GIB + self.heap_gib + self.overhead_gib
        if asked_gib > _MEMORY_FOR_YARN * self.vcpus * self.gib_per_vcpu:
            raise ValueError(
                f"inference.instance_type={self.instance_type} is too small for a driver and an executor"
                f" ({asked_gib} GiB): name m5.xlarge or larger"
            )
        return self

    @property
    def executor_cores(self) -> int:
        """Cores of the one executor of a node: two are left for YARN, HDFS and the driver."""
        return max(1, self.vcpus - 2)

    @property
    def heap_gib(self) -> int:
        """Java heap of an executor."""
        return max(1, self.executor_cores * self.gib_per_vcpu // 4)

    @property
    def overhead_gib(self) -> int:
        """What an executor's Python workers live in: more than the heap, because state and scoring are theirs."""
        return max(1, self.vcpus * self.gib_per_vcpu // 4)


class ScheduleSettings(_Group):
    """Executions by the clock; none are started unless enabled."""

    enabled: Annotated[bool, Field(description="collect and serve on every trading day")] = False
    collect_at: Annotated[
        str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="New York time of the day's ingest")
    ] = "17:30"
    serve_at: Annotated[
        str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="New York time at which the cluster is started")
    ] = "09:15"


class ObservabilitySettings(_Group):
    """Logs and alarms."""

    log_days: Annotated[
        Literal[1, 3, 5, 7, 14, 30, 60, 90, 180, 365], Field(description="days for which logs are kept")
    ] = 30
    email: Annotated[
        str, Field(pattern=r"^$|^[^@\s]+@[^@\s]+\.[^@\s]+$", description="address that alarms and failures go to")
    ] = ""
    min_coverage: Annotated[float, Field(gt=0, le=1, description="alarm below this share of tickers with bars")] = 0.95
    max_stream_lag_s: Annotated[int, Field(ge=10, description="alarm above this lag of the stream")] = 180
    stale_min: Annotated[
        int, Field(ge=2, le=120, description="alarm after so many minutes without a prediction while a cluster serves")
    ] = 15


class Deployment(_Group):
    """All settings of one deployment."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,20}$", description="first part of the stacks' names")] = (
        "stockflow"
    )
    retain: Annotated[bool, Field(description="keep the data buckets when the data stack is destroyed")] = True
    always_on: Annotated[bool, Field(description="one EMR cluster that stays, instead of one for each execution")] = (
        False
    )
    universe: Annotated[
        str, Field(min_length=1, description="tickers by commas, dow30, sp100 or sp500; an execution may name others")
    ] = "dow30"
    timeout_hours: Annotated[int, Field(ge=1, le=168, description="limit of an execution")] = 24
    storage: StorageSettings = StorageSettings()
    ingestion: IngestionSettings = IngestionSettings()
    training: TrainingSettings = TrainingSettings()
    batch_training: BatchTrainingSettings = BatchTrainingSettings()
    inference: InferenceSettings = InferenceSettings()
    schedules: ScheduleSettings = ScheduleSettings()
    observability: ObservabilitySettings = ObservabilitySettings()
    settings: Settings = Settings()
    """Defaults of the phases; an execution may change them."""


@cache
def training_instance_types() -> tuple[str, ...]:
    """What SageMaker's own API model lists for training."""
    model = botocore.loaders.Loader().load_service_model("sagemaker", "service-2")
    return tuple(model["shapes"]["TrainingInstanceType"]["enum"])


def describe() -> list[tuple[str, str, str]]:
    """(name, default as JSON, note) of every setting but those of the phases, which `stockflow settings` lists."""
    return list(_describe(Deployment, ""))


def _describe(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        default = field.get_default()
        if isinstance(default, Settings):
            continue
        if isinstance(default, BaseModel):
            yield from _describe(type(default), f"{name}.")
        else:
            note = str(field.description)
            if allowed := get_args(field.annotation):
                note += f" ({', '.join(str(value) for value in allowed)})" if isinstance(allowed[0], int) else ""
            yield f"{prefix}{name}", json.dumps(default), note
