"""SageMaker training jobs as real processes, asked for with boto3."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from embedded.aws.account import client

_SERVER = """
import logging, signal, sys
from pathlib import Path
from moto.server import ThreadedMotoServer
from embedded.aws.host import Host
from embedded.aws.training import install
logging.getLogger("werkzeug").setLevel(logging.ERROR)
folder = Path(sys.argv[1])
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
url = "http://{}:{}".format(*server.get_host_and_port())
host = Host(endpoint=url, folder=folder / "run", environ={"PATH": "/usr/bin:/bin", "OF_THE_MACHINE": "1"}, cores=2)
for script in (folder / "scripts").iterdir():
    dockerfile = folder / f"{script.stem}.Dockerfile"
    dockerfile.write_text(f"FROM base\\nCOPY {script.name} /opt/ml/code/{script.name}\\n"
                          f"ENV SAGEMAKER_PROGRAM={script.name} OF_THE_IMAGE=1\\n")
    host.images.publish(f"images/{script.stem}", dockerfile, folder / "scripts")
install(host)
print(url, flush=True)
signal.sigwait({signal.SIGTERM})
host.close()
"""

_SCRIPTS = {
    "tell": """
        import json, os, sys
        from pathlib import Path
        told = {name: os.environ[name] for name in os.environ}
        files = {str(p.relative_to(os.environ["SM_INPUT_DIR"])): p.read_text()
                 for p in Path(os.environ["SM_INPUT_DIR"]).rglob("*") if p.is_file()}
        Path(os.environ["SM_MODEL_DIR"], "told.json").write_text(
            json.dumps({"environ": told, "argv": sys.argv[1:], "files": files, "cwd": os.getcwd()}))
    """,
    "ranks": """
        import json, os
        rank = os.environ["OMPI_COMM_WORLD_RANK"]
        told = {name: os.environ.get(name, "") for name in (
            "OMPI_COMM_WORLD_SIZE", "SM_CURRENT_HOST", "SM_CHANNEL_PARTS", "AWS_ACCESS_KEY_ID", "OF_THE_JOB",
            "OF_THE_IMAGE", "SM_HP_LEARN", "TRAINING_JOB_NAME")}
        told["parts"] = sorted(os.listdir(told["SM_CHANNEL_PARTS"]))
        print(json.dumps({"rank": int(rank), **told}))
        open(os.path.join(os.environ["SM_MODEL_DIR"], rank), "w").close()
    """,
    "measure": """
        import sys
        print("epoch=1 loss=3.5", "validation=nan")
        print("epoch=2 loss=1.25")
        print("accuracy=0.5", file=sys.stderr)
    """,
    "sleep": """
        import os, signal, sys, time
        def end(*_):
            open(os.path.join(os.environ["SM_MODEL_DIR"], "saved"), "w").close()
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        print("pid", os.getpid(), flush=True)
        time.sleep(60)
    """,
    "deaf": """
        import os, time
        print("pid", os.getpid(), flush=True)
        time.sleep(60)
    """,
    "raise": """
        raise RuntimeError("no gradient today")
    """,
    "explain": """
        import os, sys
        with open(os.path.join(os.environ["SM_OUTPUT_DIR"], "failure"), "w") as file:
            file.write("the loss is not finite")
        sys.exit(3)
    """,
    "first": """
        import os, sys, time
        if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
            sys.exit("rank 1: too few windows")
        time.sleep(0.2)
        print("rank 0: lost the others", file=sys.stderr)
        time.sleep(60)
    """,
    "output": """
        import os
        with open(os.path.join(os.environ["SM_OUTPUT_DATA_DIR"], "curve.csv"), "w") as file:
            file.write("1,2")
    """,
    "alone": """
        import os
        open(os.path.join(os.environ["SM_MODEL_DIR"], os.environ["SM_CURRENT_HOST"]), "w").close()
        print(os.environ["SM_CURRENT_HOST"], os.listdir(os.environ["SM_CHANNEL_PARTS"]))
    """,
}
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
_MPI = {"sagemaker_mpi_enabled": "true"}
_LOG_GROUP = "/aws/sagemaker/TrainingJobs"


class Service:
    """An embedded SageMaker with an image for each of the scripts, a role and a bucket."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.sagemaker = self.client("sagemaker")
        self.s3 = self.client("s3")
        self.s3.create_bucket(Bucket="data")
        for key in ("parts/a", "parts/b", "parts/deep/c"):
            self.s3.put_object(Bucket="data", Key=key, Body=key.encode())
        self.s3.create_bucket(Bucket="guarded")
        self.s3.put_object(Bucket="guarded", Key="secret", Body=b"")
        deny = {"Effect": "Deny", "Principal": "*", "Resource": "arn:aws:s3:::guarded/*"}
        statement = {**deny, "Action": ["s3:GetObject", "s3:PutObject"]}
        self.s3.put_bucket_policy(Bucket="guarded", Policy=json.dumps({"Statement": [statement]}))
        self.role = self.make_role("trainer", _TRUST)
        self._count = 0

    def client(self, service: str) -> Any:
        return client(service, self.url)

    def make_role(self, name: str, trust: Any) -> str:
        role = self.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
        return str(role["Role"]["Arn"])

    def start(self, script: str, instances: int = 1, name: str = "", **parameters: Any) -> str:
        self._count += 1
        name = name or f"job-{script}-{self._count}"
        request = {
            "TrainingJobName": name,
            "RoleArn": self.role,
            "AlgorithmSpecification": {"TrainingImage": f"images/{script}", "TrainingInputMode": "File"},
            "OutputDataConfig": {"S3OutputPath": "s3://data/out/"},
            "ResourceConfig": {"InstanceType": "ml.c5.xlarge", "InstanceCount": instances, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        }
        self.sagemaker.create_training_job(**request | parameters)
        return name

    def describe(self, name: str) -> dict[str, Any]:
        described: dict[str, Any] = self.sagemaker.describe_training_job(TrainingJobName=name)
        return described

    def wait(self, name: str, until: Callable[[dict[str, Any]], Any] | None = None) -> dict[str, Any]:
        ended = until or (lambda job: job["TrainingJobStatus"] not in {"InProgress", "Stopping"})
        deadline = time.monotonic() + 30
        while not ended(job := self.describe(name)):
            assert time.monotonic() < deadline, job
            time.sleep(0.05)
        return job

    def run(self, script: str, **parameters: Any) -> dict[str, Any]:
        return self.wait(self.start(script, **parameters))

    def lines(self, name: str) -> list[str]:
        logs = self.client("logs")
        streams = logs.describe_log_streams(logGroupName=_LOG_GROUP, logStreamNamePrefix=f"{name}/")["logStreams"]
        pages = [
            logs.get_log_events(logGroupName=_LOG_GROUP, logStreamName=stream["logStreamName"], startFromHead=True)
            for stream in streams
        ]
        return [event["message"] for page in pages for event in page["events"]]

    def pids(self, name: str, count: int = 1) -> list[int]:
        """Process ids that a job's script printed."""
        deadline = time.monotonic() + 20
        while len(found := [int(line.split()[-1]) for line in self._lines_so_far(name) if "pid " in line]) < count:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return found

    def _lines_so_far(self, name: str) -> list[str]:
        try:
            return self.lines(name)
        except ClientError:
            return []

    def archive(self, name: str, file: str = "model.tar.gz") -> dict[str, bytes]:
        body = self.s3.get_object(Bucket="data", Key=f"out/{name}/output/{file}")["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(body)) as packed:
            opened = {member.name: packed.extractfile(member) for member in packed.getmembers() if member.isfile()}
            return {name: file.read() for name, file in opened.items() if file}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("training")
    (folder / "scripts").mkdir()
    for name, source in _SCRIPTS.items():
        text = "\n".join(line.removeprefix(" " * 8) for line in source.splitlines())
        (folder / "scripts" / f"{name}.py").write_text(text)
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(folder)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    try:
        yield Service(process.stdout.readline().strip(), folder)
    finally:
        process.terminate()
        process.communicate(timeout=20)


def _parts(**source: str) -> list[dict[str, Any]]:
    uri = {"S3DataType": "S3Prefix", "S3Uri": "s3://data/parts/", **source}
    return [{"ChannelName": "parts", "DataSource": {"S3DataSource": uri}}]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 5
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(_alive(pid) for pid in pids)


def test_a_script_finds_what_the_toolkit_gives_it(service: Service) -> None:
    job = service.run(
        "tell",
        HyperParameters={"settings": '{"b": {"c": 1}, "a": 2}', "epochs": "3", "note": "plain", "n": "1"},
        Environment={"OF_THE_JOB": "1"},
        InputDataConfig=_parts(),
    )
    name = job["TrainingJobName"]
    told = json.loads(service.archive(name)["told.json"])
    environ = told["environ"]
    assert json.loads(environ["SM_HP_SETTINGS"]) == {"a": 2, "b": {"c": 1}}
    assert environ["SM_HP_EPOCHS"] == "3"
    assert json.loads(environ["SM_HPS"])["note"] == "plain"
    assert told["argv"] == ["--epochs", "3", "-n", "1", "--note", "plain", "--settings", "a=2,b={'c': 1}"]
    assert json.loads(environ["SM_USER_ARGS"]) == told["argv"]
    assert json.loads(environ["SM_HOSTS"]) == ["algo-1"]
    assert json.loads(environ["SM_CHANNELS"]) == ["parts"]
    assert environ["SM_CHANNEL_PARTS"] == f"{environ['SM_INPUT_DIR']}/data/parts"
    assert environ["SM_CURRENT_HOST"] == "algo-1"
    assert (environ["SM_MODULE_NAME"], environ["SM_NUM_CPUS"]) == ("tell", "2")
    assert (environ["OF_THE_JOB"], environ["OF_THE_IMAGE"], environ["OF_THE_MACHINE"]) == ("1", "1", "1")
    assert environ["TRAINING_JOB_NAME"] == name
    assert environ["TRAINING_JOB_ARN"] == job["TrainingJobArn"]
    assert environ["AWS_SESSION_TOKEN"]
    assert told["cwd"] == str(service.folder / "scripts")
    parts = {key: text for key, text in told["files"].items() if key.startswith("data/")}
    assert parts == {f"data/{key}": key for key in ("parts/a", "parts/b", "parts/deep/c")}
    assert json.loads(told["files"]["config/hyperparameters.json"])["epochs"] == "3"
    assert json.loads(told["files"]["config/resourceconfig.json"])["current_host"] == "algo-1"
    assert json.loads(told["files"]["config/inputdataconfig.json"])["parts"]["TrainingInputMode"] == "File"
    assert not (service.folder / "run" / "training" / name).exists()


def test_a_fast_file_channel_has_the_files_too(service: Service) -> None:
    specification = {"TrainingImage": "images/tell", "TrainingInputMode": "FastFile"}
    job = service.run("tell", AlgorithmSpecification=specification, InputDataConfig=_parts())
    files = json.loads(service.archive(job["TrainingJobName"])["told.json"])["files"]
    assert json.loads(files["config/inputdataconfig.json"])["parts"]["TrainingInputMode"] == "FastFile"
    assert files["data/parts/deep/c"] == "parts/deep/c"


def test_a_completed_job_is_described_as_on_aws(service: Service) -> None:
    definitions = [{"Name": "loss", "Regex": r"\bloss=([0-9.]+)"}, {"Name": "accuracy", "Regex": "accuracy=(.*)"}]
    definitions += [{"Name": "validation", "Regex": r"validation=(\w+)"}]
    specification = {"TrainingImage": "images/measure", "TrainingInputMode": "File", "MetricDefinitions": definitions}
    job = service.run("measure", AlgorithmSpecification=specification, Environment={"A": "1"})
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Completed", "Completed")
    steps = job["SecondaryStatusTransitions"]
    assert [step["Status"] for step in steps] == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert all(step["StartTime"] <= step["EndTime"] for step in steps)
    assert job["TrainingStartTime"] <= job["TrainingEndTime"] == job["LastModifiedTime"]
    assert job["TrainingTimeInSeconds"] == job["BillableTimeInSeconds"] >= 1
    assert {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]} == {
        "loss": 1.25,
        "accuracy": 0.5,
    }
    assert job["AlgorithmSpecification"] == specification
    assert job["Environment"] == {"A": "1"}
    assert job["ResourceConfig"]["InstanceType"] == "ml.c5.xlarge"
    assert "FailureReason" not in job
    name = job["TrainingJobName"]
    assert job["ModelArtifacts"] == {"S3ModelArtifacts": f"s3://data/out/{name}/output/model.tar.gz"}
    assert [line for line in service.lines(name) if "loss" in line] == [
        "epoch=1 loss=3.5 validation=nan",
        "epoch=2 loss=1.25",
    ]
    published = service.client("cloudwatch").list_metrics(Namespace=_LOG_GROUP)["Metrics"]
    dimensions = [{"Name": "TrainingJobName", "Value": name}]
    assert {metric["MetricName"] for metric in published if metric["Dimensions"] == dimensions} == {"loss", "accuracy"}


def test_a_log_stream_is_named_as_sagemaker_names_it(service: Service) -> None:
    name = service.run("measure")["TrainingJobName"]
    streams = service.client("logs").describe_log_streams(logGroupName=_LOG_GROUP, logStreamNamePrefix=name)
    (stream,) = streams["logStreams"]
    job, _, host = stream["logStreamName"].partition("/")
    assert job == name
    assert host.startswith("algo-1-")
    assert abs(int(host.removeprefix("algo-1-")) - time.time()) < 60


def test_an_empty_folder_is_not_uploaded_and_one_with_files_is(service: Service) -> None:
    name = service.run("output")["TrainingJobName"]
    assert service.archive(name, "output.tar.gz") == {"curve.csv": b"1,2"}
    found = service.s3.list_objects_v2(Bucket="data", Prefix=f"out/{name}/")["Contents"]
    assert [item["Key"] for item in found] == [f"out/{name}/output/output.tar.gz"]


def _ranks(service: Service, name: str) -> list[dict[str, Any]]:
    told = [json.loads(line.partition("<stdout>:")[2]) for line in service.lines(name) if '"rank"' in line]
    return sorted(told, key=lambda one: int(one["rank"]))


def test_mpirun_starts_the_ranks_of_one_host(service: Service) -> None:
    hyperparameters = {**_MPI, "sagemaker_mpi_num_of_processes_per_host": "2", "learn": "0.5"}
    hyperparameters["sagemaker_mpi_custom_mpi_options"] = "--NCCL_DEBUG=INFO --timestamp-output"
    job = service.run(
        "ranks", HyperParameters=hyperparameters, Environment={"OF_THE_JOB": "1"}, InputDataConfig=_parts()
    )
    assert job["TrainingJobStatus"] == "Completed", job
    ranks = [json.loads(line[line.index("{") :]) for line in service.lines(job["TrainingJobName"]) if '"rank"' in line]
    assert {(one["rank"], one["OMPI_COMM_WORLD_SIZE"], one["SM_CURRENT_HOST"]) for one in ranks} == {
        (0, "2", "algo-1"),
        (1, "2", "algo-1"),
    }
    assert all(one["AWS_ACCESS_KEY_ID"] and one["OF_THE_JOB"] == one["OF_THE_IMAGE"] == "1" for one in ranks)


def test_ranks_on_other_hosts_have_their_own_data_and_neither_variables_nor_credentials(service: Service) -> None:
    hyperparameters = {**_MPI, "sagemaker_mpi_num_of_processes_per_host": "2", "learn": "0.5"}
    name = service.start(
        "ranks",
        instances=2,
        HyperParameters=hyperparameters,
        Environment={"OF_THE_JOB": "1"},
        InputDataConfig=_parts(S3DataDistributionType="ShardedByS3Key"),
    )
    assert service.wait(name)["TrainingJobStatus"] == "Completed"
    ranks = _ranks(service, name)
    assert [one["rank"] for one in ranks] == [0, 1, 2, 3]
    assert {one["OMPI_COMM_WORLD_SIZE"] for one in ranks} == {"4"}
    assert {(one["SM_CURRENT_HOST"], one["SM_HP_LEARN"]) for one in ranks} == {("algo-1", "0.5")}
    assert [one["parts"] for one in ranks] == [["a", "deep"]] * 2 + [["b"]] * 2
    own = ("AWS_ACCESS_KEY_ID", "OF_THE_JOB", "OF_THE_IMAGE", "TRAINING_JOB_NAME")
    assert [all(one[name] for name in own) for one in ranks] == [True, True, False, False]
    assert [any(one[name] for name in own) for one in ranks] == [True, True, False, False]
    assert sorted(service.archive(name)) == ["0", "1", "2", "3"]


def test_without_mpi_every_host_runs_the_script(service: Service) -> None:
    name = service.start("alone", instances=2, InputDataConfig=_parts())
    assert service.wait(name)["TrainingJobStatus"] == "Completed"
    assert sorted(service.archive(name)) == ["algo-1", "algo-2"]
    assert sum("deep" in line for line in service.lines(name)) == 2


def test_a_script_that_raises_fails_the_job_with_its_last_line(service: Service) -> None:
    job = service.run("raise")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Failed", "Failed")
    assert job["FailureReason"] == (
        "AlgorithmError: ExecuteUserScriptError: RuntimeError: no gradient today, exit code: 1"
    )
    assert "ModelArtifacts" not in job


def test_a_failure_file_is_the_reason(service: Service) -> None:
    job = service.run("explain")
    assert job["FailureReason"] == "AlgorithmError: the loss is not finite, exit code: 3"


def test_the_rank_that_failed_first_is_the_reason(service: Service) -> None:
    job = service.run("first", HyperParameters={**_MPI, "sagemaker_mpi_num_of_processes_per_host": "2"})
    assert job["FailureReason"] == "AlgorithmError: ExecuteUserScriptError: rank 1: too few windows, exit code: 1"


def test_a_killed_rank_fails_the_job_and_takes_the_others_with_it(service: Service) -> None:
    name = service.start("deaf", HyperParameters={**_MPI, "sagemaker_mpi_num_of_processes_per_host": "2"})
    pids = service.pids(name, 2)
    os.kill(pids[1], signal.SIGKILL)
    job = service.wait(name)
    assert job["TrainingJobStatus"] == "Failed"
    assert "exited on signal 9 (Killed)" in job["FailureReason"]
    assert job["FailureReason"].endswith("exit code: 137")
    assert _gone(pids)


def test_a_killed_mpirun_leaves_no_rank(service: Service) -> None:
    name = service.start("deaf", HyperParameters={**_MPI, "sagemaker_mpi_num_of_processes_per_host": "2"})
    pids = service.pids(name, 2)
    parent = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    job = service.wait(name)
    assert job["FailureReason"].endswith("exit code: 137")
    assert _gone(pids)


def test_a_stopped_job_may_still_leave_a_model(service: Service) -> None:
    name = service.start("sleep")
    pids = service.pids(name)
    service.sagemaker.stop_training_job(TrainingJobName=name)
    assert service.describe(name)["TrainingJobStatus"] in {"Stopping", "Stopped"}
    job = service.wait(name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    steps = [step["Status"] for step in job["SecondaryStatusTransitions"]]
    assert steps == ["Starting", "Downloading", "Training", "Stopping", "Stopped"]
    assert list(service.archive(name)) == ["saved"]
    assert _gone(pids)
    with pytest.raises(ClientError, match=r"ValidationException.*training job is in status Stopped"):
        service.sagemaker.stop_training_job(TrainingJobName=name)


def test_a_job_that_runs_too_long_is_stopped(service: Service) -> None:
    job = service.run("sleep", StoppingCondition={"MaxRuntimeInSeconds": 1})
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert list(service.archive(job["TrainingJobName"])) == ["saved"]


def test_a_job_that_waits_for_cores_can_be_stopped_and_waits_no_longer_than_it_may(service: Service) -> None:
    first = service.start("deaf", instances=2)
    pids = service.pids(first, 2)
    second = service.start("measure")
    assert service.describe(second)["SecondaryStatus"] == "Starting"
    service.sagemaker.stop_training_job(TrainingJobName=second)
    assert service.wait(second)["SecondaryStatus"] == "Stopped"
    spot = {"MaxRuntimeInSeconds": 1, "MaxWaitTimeInSeconds": 1}
    third = service.run("measure", StoppingCondition=spot, EnableManagedSpotTraining=True)
    assert (third["TrainingJobStatus"], third["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")
    service.sagemaker.stop_training_job(TrainingJobName=first)
    assert service.wait(first)["SecondaryStatus"] == "Stopped"
    assert _gone(pids)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"script": "unheard"}, "ClientError: image images/unheard is none of the deployment's assets"),
        ({"Environment": {"SAGEMAKER_PROGRAM": "other.py"}}, "ClientError: /opt/ml/code/other.py is not in the image"),
        (
            {"OutputDataConfig": {"S3OutputPath": "s3://nowhere/out"}},
            "ClientError: Artifact upload failed:.*NoSuchBucket",
        ),
        (
            {"HyperParameters": {**_MPI, "sagemaker_mpi_num_of_processes_per_host": "none"}},
            "ClientError: sagemaker_mpi_num_of_processes_per_host is 'none': give 1 or more",
        ),
        (
            {"HyperParameters": {**_MPI, "sagemaker_mpi_custom_mpi_options": "--no-such-option"}},
            "AlgorithmError: .*exit code: ",
        ),
        ({"InputDataConfig": _parts(S3DataType="ManifestFile")}, "ClientError: channel parts is no S3Prefix"),
        (
            {"InputDataConfig": [{**_parts()[0], "InputMode": "Pipe"}]},
            "ClientError: channel parts is no S3Prefix read as files",
        ),
        ({"InputDataConfig": _parts(S3Uri="s3://guarded/")}, "ClientError: Data download failed:.*403"),
        (
            {"OutputDataConfig": {"S3OutputPath": "s3://guarded/out"}},
            "ClientError: Artifact upload failed:.*403",
        ),
    ],
)
def test_a_job_that_cannot_run_fails_with_a_reason(service: Service, changed: dict[str, Any], reason: str) -> None:
    job = service.run(**{"script": "tell", **changed})
    assert job["TrainingJobStatus"] == "Failed"
    assert re.match(reason, job["FailureReason"]), job["FailureReason"]


@pytest.mark.parametrize(
    ("parameters", "refusal"),
    [
        ({"name": "no_such_name"}, "1 validation error detected: .* at 'TrainingJobName' .* regular expression"),
        ({"Environment": {"A": "x" * 513}}, "Environment.A' .*less than or equal to 512"),
        ({"HyperParameters": {"settings": "x" * 2501}}, "less than or equal to 2500"),
        ({"AlgorithmSpecification": {"TrainingInputMode": "File", "AlgorithmName": "a"}}, "TrainingImage is missing"),
        ({"RoleArn": "arn:aws:iam::123456789012:role/nobody"}, "Could not assume role .*nobody"),
        (
            {"InputDataConfig": _parts(S3Uri="s3://data/nothing/")},
            "No S3 objects found under S3 URL .s3://data/nothing/",
        ),
        ({"InputDataConfig": _parts(S3Uri="s3://nowhere/x")}, "Error message from S3: .*NoSuchBucket"),
    ],
)
def test_a_wrong_request_is_refused_before_there_is_a_job(
    service: Service, parameters: dict[str, Any], refusal: str
) -> None:
    with pytest.raises(ClientError, match=f"ValidationException.*{refusal}"):
        service.start("measure", **parameters)


def test_a_role_that_does_not_trust_sagemaker_is_refused(service: Service) -> None:
    trust = json.loads(json.dumps(_TRUST).replace("sagemaker", "batch"))
    role = service.make_role("batch-only", trust)
    with pytest.raises(ClientError, match=r"ValidationException.*allows principal 'sagemaker.amazonaws.com'"):
        service.start("measure", RoleArn=role)


def test_jobs_are_listed_by_name_and_status_over_pages(service: Service) -> None:
    names = [service.start("measure", name=f"listed-{number}") for number in range(11)]
    with pytest.raises(ClientError, match="ResourceInUse"):
        service.start("measure", name="listed-0")
    listed = service.sagemaker.get_paginator("list_training_jobs")
    pages = list(listed.paginate(NameContains="listed-", SortBy="Name", PaginationConfig={"PageSize": 4}))
    assert [len(page["TrainingJobSummaries"]) for page in pages] == [4, 4, 3]
    found = [job["TrainingJobName"] for page in pages for job in page["TrainingJobSummaries"]]
    assert found == sorted(names)
    for name in names:
        service.wait(name)
    completed = listed.paginate(NameContains="listed-1", StatusEquals="Completed").build_full_result()
    assert {job["TrainingJobName"] for job in completed["TrainingJobSummaries"]} == {"listed-1", "listed-10"}
    assert len(service.sagemaker.list_training_jobs(NameContains="listed-")["TrainingJobSummaries"]) == 10
    in_progress = listed.paginate(NameContains="listed-", StatusEquals="InProgress").build_full_result()
    assert in_progress["TrainingJobSummaries"] == []


def test_tags_are_kept(service: Service) -> None:
    tags = [{"Key": "deployment", "Value": "here"}]
    job = service.run("measure", Tags=tags)
    assert service.sagemaker.list_tags(ResourceArn=job["TrainingJobArn"])["Tags"] == tags
