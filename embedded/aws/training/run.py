"""The life of a training job, from waiting for cores to its end, in a thread of its own."""

from __future__ import annotations

import logging
import math
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from app.errors import StockflowError
from embedded.aws.account import client
from embedded.aws.host import Host
from embedded.aws.training.commands import find_script, mpi_command, script_command
from embedded.aws.training.data import JobFault, download, upload
from embedded.aws.training.job import End, TrainingJob
from embedded.aws.training.log import JobLog, Metrics
from embedded.aws.training.processes import Ended, Process, run_processes
from embedded.aws.training.request import PRINCIPAL
from embedded.aws.training.toolkit import OptMl, Parameters, input_data_config, resource_config, variables

_log = logging.getLogger(__name__)
_DAY_S: Final = 86_400
_LONGEST_REASON: Final = 1024
"""Characters of a FailureReason ..."""
_LONGEST_CAUSE: Final = 900
"""... and of the cause in it, so that the exit code behind it is within."""


def train(host: Host, job: TrainingJob) -> None:
    """Carry out a job that was just created; it has ended when this returns, whatever happens."""
    folder = host.folder / "training" / job.training_job_name
    try:
        end = _Run(host, job, folder).carry_out()
    except JobFault as exc:
        end = _failed(str(exc))
    except StockflowError as exc:
        end = _failed(f"ClientError: {exc}")
    except Exception as exc:  # the job must not hang, whatever it is
        _log.exception("training job %s", job.training_job_name)
        end = _failed(f"InternalServerError: We encountered an internal error. Please try again. ({exc})")
    shutil.rmtree(folder, ignore_errors=True)
    job.end(end)


def _failed(reason: str) -> End:
    return End("Failed", "Failed", {"failure_reason": reason[:_LONGEST_REASON]})


class _Run:
    """What a job's request means on this machine."""

    def __init__(self, host: Host, job: TrainingJob, folder: Path) -> None:
        self._host = host
        self._job = job
        self._limits: dict[str, int] = job.stopping_condition or {}
        self._channels: list[dict[str, Any]] = job.input_data_config or []
        self._credentials = host.credentials(job.role_arn, "SageMaker", PRINCIPAL)
        self._s3 = client("s3", host.endpoint, self._credentials)
        self._image = host.images.find(job.algorithm_specification["TrainingImage"])
        self._parameters = Parameters.read(job.hyper_parameters or {})
        self._ranks_per_host = self._parameters.ranks_per_host()
        names = [f"algo-{number + 1}" for number in range(job.resource_config.get("InstanceCount", 1))]
        self._places = {name: OptMl(folder / name) for name in names}
        definitions = job.algorithm_specification.get("MetricDefinitions") or []
        self._metrics = Metrics(definitions, job.training_job_name, host.endpoint, self._credentials)
        self._own = {  # what the platform gives to a container, beside what the toolkit adds in it
            **self._image.environ,
            "TRAINING_JOB_NAME": job.training_job_name,
            "TRAINING_JOB_ARN": job.arn,
            **job.environment,
        }
        self._program, self._script = find_script(self._image, self._own, self._parameters)

    def carry_out(self) -> End:
        """Train; returns how it ended, and raises what makes it fail."""
        give_up = time.monotonic() + self._limits.get("MaxWaitTimeInSeconds", math.inf)
        ranks = max(1, self._ranks_per_host) * len(self._places)
        with self._host.cores.hold(ranks, lambda: self._job.stopping or time.monotonic() > give_up) as got:
            if not got:
                return End("Stopped", "Stopped" if self._job.stopping else "MaxWaitTimeExceeded")
            self._job.enter("Downloading")
            deadline = time.monotonic() + self._limits.get("MaxRuntimeInSeconds", _DAY_S)
            environs = self._lay_out()
            self._job.enter("Training")
            ended = self._train(environs, deadline)
        if ended.status and not ended.cut_short:
            raise JobFault(self._failure(ended))
        self._job.enter("Uploading")
        artifacts = {"S3ModelArtifacts": self._upload()}
        described = {"model_artifacts": artifacts, "final_metric_data_list": self._metrics.final()}
        if ended.cut_short:
            return End("Stopped", ended.cut_short, described)
        return End("Completed", "Completed", described)

    def _lay_out(self) -> list[dict[str, str]]:
        """Make every host's folders and download the input; returns the toolkit's variables for each host."""
        mode = self._job.algorithm_specification.get("TrainingInputMode", "File")
        inputs, environs = input_data_config(self._channels, mode), []
        for name, place in self._places.items():
            resources = resource_config(name, [*self._places], self._job.resource_config.get("InstanceType", "local"))
            files = {"inputdataconfig": inputs, "resourceconfig": resources}
            place.create({"hyperparameters": self._job.hyper_parameters or {}, **files})
            if self._ranks_per_host:  # mpirun tells all ranks what the first host's toolkit knows
                resources["current_host"] = next(iter(self._places))
            cpus = self._host.cores.count
            environs.append(variables(self._parameters, place, resources, inputs, self._program, cpus))
        download(self._s3, self._channels, mode, [place.data for place in self._places.values()])
        return environs

    def _train(self, environs: Sequence[dict[str, str]], deadline: float) -> Ended:
        """Run the script under mpirun, or once on each host."""
        arguments, tools = self._parameters.arguments(), self._parameters.toolkit
        command = script_command(self._script, arguments, mpi=bool(self._ranks_per_host))
        hosts = list(zip(self._places, environs, strict=True))
        if self._ranks_per_host:
            options = str(tools.get("sagemaker_mpi_custom_mpi_options", ""))
            command = mpi_command(command, self._ranks_per_host, environs, self._own, options)
            hosts = hosts[:1]
        began, processes = int(time.time()), []
        for name, environ in hosts:
            stream = f"{self._job.training_job_name}/{name}-{began}"
            log = JobLog(self._host.endpoint, self._credentials, stream, self._metrics)
            log.line(f"Invoking script with the following command: {shlex.join(command)}")
            whole = self._host.environ(self._credentials, {**self._own, **environ})
            processes.append(Process(command, whole, log))

        def cut_short() -> str:
            self._metrics.publish()
            if self._job.stopping:
                return "Stopped"
            if time.monotonic() < deadline:
                return ""
            self._job.stop()
            return "MaxRuntimeExceeded"

        ended = run_processes(self._host, processes, self._script.parent, cut_short)
        self._metrics.publish(at_once=True)
        return ended

    def _failure(self, ended: Ended) -> str:
        """FailureReason of a script that failed: its own word in `output/failure`, or the last in its log."""
        said = [place.output / "failure" for place in self._places.values() if (place.output / "failure").is_file()]
        cause = said[0].read_text(errors="replace").strip() if said else ended.cause
        error = "" if said else "ExecuteUserScriptError: "
        return f"AlgorithmError: {error}{cause[:_LONGEST_CAUSE]}, exit code: {ended.status}"

    def _upload(self) -> str:
        """Leave in S3 what all hosts left in their folders; returns where the model is."""
        first, *others = self._places.values()
        for other in others:
            shutil.copytree(other.model, first.model, dirs_exist_ok=True)
            shutil.copytree(other.output_data, first.output_data, dirs_exist_ok=True)
        output = self._job.output_data_config["S3OutputPath"].rstrip("/")
        output = f"{output}/{self._job.training_job_name}/output"
        upload(self._s3, first.model, f"{output}/model.tar.gz")
        upload(self._s3, first.output_data, f"{output}/output.tar.gz")
        return f"{output}/model.tar.gz"
