"""The SageMaker job, the gate and the promotion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app import contract
from infra.states.asl import SAGEMAKER_FAULTS, State, States, backoff, call, chain, task
from infra.tagging import task_tags


@dataclass(frozen=True)
class TrainingJob:
    """What is the same for every training job of a deployment. place: environment that names the buckets."""

    deployment: str
    role: str
    image: str
    model_bucket: str
    place: Mapping[str, str]
    spot: bool
    encrypt_traffic: bool
    volume_gib: int
    max_runtime_s: int


def train_states(job: TrainingJob, *, gate: str, promote: str, then: str) -> States:
    """Train on the dataset, judge the model on the validation days, promote it where it is no worse than what serves.

    A refused model is no failure while an older one serves; with none at all there is nothing to serve.
    """
    return chain(
        {
            "TrainModel": _training_job(job),
            "GateModel": call(gate, into="$.gate", fields=("promote", "reason", "model_id", "serving")),
            "IfBetter": {
                "Type": "Choice",
                "Choices": [
                    {"Variable": "$.gate.promote", "BooleanEquals": True, "Next": "PromoteModel"},
                    {
                        "And": [
                            {"Variable": "$.gate.serving", "StringEquals": ""},
                            {"Variable": "$.phases.serve", "BooleanEquals": True},
                        ],
                        "Next": "NothingToServe",
                    },
                ],
                "Default": then,
            },
            "NothingToServe": {"Type": "Fail", "Error": "NothingToServe", "CausePath": "$.gate.reason"},
            "PromoteModel": call(promote, into=None),
        },
        then,
    )


def _training_job(job: TrainingJob) -> State:
    wait_s = {"MaxWaitTimeInSeconds": 2 * job.max_runtime_s} if job.spot else {}
    parameters = {
        "TrainingJobName.$": "States.Format('{}-{}', $.job_prefix, States.UUID())",
        "RoleArn": job.role,
        "AlgorithmSpecification": {
            "TrainingImage": job.image,
            "TrainingInputMode": "FastFile",  # a host fetches what its ranks read, not every split whole
            "MetricDefinitions": [
                {"Name": name, "Regex": rf"\b{name}=([0-9.eE+-]+)"} for name in contract.TRAINING_METRICS
            ],
        },
        # Read by the sagemaker-training toolkit inside the image, which starts mpirun over all hosts. Ranks on other
        # hosts get neither variables nor credentials: rank 0 tells them the settings, each host has the channel.
        "HyperParameters": {
            "sagemaker_mpi_enabled": "true",
            "sagemaker_mpi_num_of_processes_per_host.$": "States.Format('{}', $.training.processes)",
            # Not in Environment, whose values end at 512 characters; these end at 2,500.
            f"{contract.HYPERPARAMETER_SETTINGS}.$": "$.settings_json",
        },
        "Environment": {
            **job.place,
            f"{contract.ENV_RUN_ID}.$": "$.run_id",
            f"{contract.ENV_DATASET_RUN}.$": "$.dataset_run",
            contract.ENV_PROGRESS: "json",
        },
        "InputDataConfig": [
            {
                "ChannelName": "dataset",
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri.$": f"States.Format('s3://{{}}/{contract.DATASETS_PREFIX}{{}}/',"
                        f" '{job.model_bucket}', $.dataset_run)",
                        "S3DataDistributionType": "FullyReplicated",
                    }
                },
            }
        ],
        "OutputDataConfig": {"S3OutputPath": f"s3://{job.model_bucket}/{contract.TRAINING_JOBS_PREFIX}"},
        "ResourceConfig": {
            "InstanceType.$": "$.training.instance_type",
            "InstanceCount.$": "$.training.instances",
            "VolumeSizeInGB": job.volume_gib,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": job.max_runtime_s, **wait_s},
        "EnableManagedSpotTraining": job.spot,
        "EnableInterContainerTrafficEncryption": job.encrypt_traffic,
        "Tags": task_tags(job.deployment, "train"),
    }
    return task(
        "arn:aws:states:::sagemaker:createTrainingJob.sync",
        parameters,
        retry=[backoff(*SAGEMAKER_FAULTS, attempts=3, first_s=10)],
        timeout_s=(2 if job.spot else 1) * job.max_runtime_s + 1800,  # instances are waited for too
    )
