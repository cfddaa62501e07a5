"""SageMaker training jobs that train: real processes on this machine, behind moto's SageMaker API.

Same as on AWS: the request is checked before there is a job; the job's role must trust SageMaker, and its rights
alone reach the input, the output, the log and the metrics; `/opt/ml`, its files and the toolkit's variables; statuses,
reasons and times; what is stopped or runs too long gets SIGTERM first and may still leave a model.

Not carried out, only described: instance types and groups, volumes, VPC, spot interruptions, network isolation,
CheckpointConfig, uncompressed output, debugger and profiler. FastFile channels are copied as File ones are. Refused
with a reason: algorithms without an image, pipe mode, input other than S3 prefixes.
"""

from __future__ import annotations

import threading
from typing import Any

import moto.sagemaker.models as moto_models
from moto.core.responses import ActionResult, EmptyResult
from moto.sagemaker.exceptions import ResourceInUseException, ValidationError
from moto.sagemaker.responses import SageMakerResponse

from embedded.aws.host import Host
from embedded.aws.training.job import TrainingJob
from embedded.aws.training.listing import list_jobs
from embedded.aws.training.request import check_input, check_request, check_role
from embedded.aws.training.run import train


def install(host: Host) -> None:
    """Let CreateTrainingJob start processes on `host`, and add StopTrainingJob, which moto lacks."""
    moto_models.FakeTrainingJob = TrainingJob
    create_record = SageMakerResponse.create_training_job

    def create_training_job(response: Any) -> Any:
        parameters = response.params
        check_request("CreateTrainingJob", parameters)
        jobs = response.sagemaker_backend.training_jobs
        if (name := parameters["TrainingJobName"]) in jobs:
            raise ResourceInUseException(
                "Training job names must be unique within an AWS account and region, and a training job with this "
                f"name already exists ({jobs[name].arn})"
            )
        check_role(parameters["RoleArn"])
        check_input(host, parameters)
        answer = create_record(response)
        job: TrainingJob = jobs[name]
        job.environment = parameters.get("Environment") or {}
        threading.Thread(target=train, args=(host, job), name=f"training job {name}", daemon=True).start()
        return answer

    def stop_training_job(response: Any) -> Any:
        job = response.sagemaker_backend.training_jobs.get(response.params["TrainingJobName"])
        if job is None:
            raise ValidationError("Requested resource not found.")
        job.stop()
        return EmptyResult()

    def list_training_jobs(response: Any) -> Any:
        return ActionResult(list_jobs(response.sagemaker_backend.training_jobs.values(), response.params))

    SageMakerResponse.create_training_job = create_training_job
    SageMakerResponse.stop_training_job = stop_training_job
    SageMakerResponse.list_training_jobs = list_training_jobs
