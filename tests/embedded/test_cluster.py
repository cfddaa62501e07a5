"""EMR on this machine: clusters that live and die, and steps that are processes."""

from __future__ import annotations

import gzip
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from botocore.exceptions import ClientError

from embedded.aws.account import client
from tests.embedded.conftest import Serve
from tests.embedded.roles import trusting

_DRIVER = """
import os, pathlib, sys, time
import boto3

print(boto3.client("sts").get_caller_identity()["Arn"], os.environ["TOLD"], os.getcwd(), sys.argv[2:])
state = pathlib.Path(sys.argv[1].removeprefix("file://"))
if not state.exists():
    state.parent.mkdir(parents=True)
    state.write_text("half done")
    boto3.client("s3").put_object(Bucket="programs", Key="driver", Body=str(os.getppid()))
    time.sleep(60)
print("going on:", state.read_text())
sys.exit(8)
"""
FAILURES = (
    ("TERMINATE_CLUSTER", False, "TERMINATED_WITH_ERRORS", "CANCELLED"),
    ("TERMINATE_CLUSTER", True, "WAITING", "CANCELLED"),
    ("CANCEL_AND_WAIT", False, "WAITING", "CANCELLED"),
    ("CONTINUE", False, "WAITING", "COMPLETED"),
)
"""What a failed step asks for, whether its cluster is protected, what becomes of the cluster and of the next step."""
_T = TypeVar("_T")


def until(look: Callable[[], _T | None], within_s: float = 40) -> _T:
    deadline = time.monotonic() + within_s
    while (found := look()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def step(*words: str, on_failure: str = "CONTINUE", jar: str = "command-runner.jar") -> dict[str, Any]:
    return {"Name": "s", "ActionOnFailure": on_failure, "HadoopJarStep": {"Jar": jar, "Args": list(words)}}


@dataclass(frozen=True)
class World:
    """An EMR of which nodes may run as the instance profile `nodes`, and the buckets `programs` and `logs`."""

    url: str
    emr: Any
    s3: Any

    @classmethod
    def at(cls, url: str) -> World:
        iam, s3 = client("iam", url), client("s3", url)
        iam.create_role(RoleName="node", AssumeRolePolicyDocument=trusting("ec2"))
        iam.create_instance_profile(InstanceProfileName="nodes")
        iam.add_role_to_instance_profile(InstanceProfileName="nodes", RoleName="node")
        for bucket in ("programs", "logs"):
            s3.create_bucket(Bucket=bucket)
        return cls(url, client("emr", url), s3)

    def create(self, *steps: dict[str, Any], stays: bool = True, protected: bool = False, **more: Any) -> str:
        group = {"InstanceRole": "MASTER", "InstanceType": "m5.2xlarge", "InstanceCount": 1}
        instances = {
            "KeepJobFlowAliveWhenNoSteps": stays,
            "TerminationProtected": protected,
            "InstanceGroups": [group],
        }
        asked = {"JobFlowRole": "nodes", "ServiceRole": "service", "ReleaseLabel": "emr-7.13.0", **more}
        return str(self.emr.run_job_flow(Name="c", Instances=instances, Steps=steps, **asked)["JobFlowId"])

    def add(self, cluster: str, *steps: dict[str, Any]) -> list[str]:
        return list(self.emr.add_job_flow_steps(JobFlowId=cluster, Steps=steps)["StepIds"])

    def ids(self, cluster: str) -> list[str]:
        """Of its steps, the oldest first."""
        return [found["Id"] for found in reversed(self.emr.list_steps(ClusterId=cluster)["Steps"])]

    def cluster(self, cluster: str, *states: str) -> dict[str, Any]:
        """The cluster's status, in one of the states when any are named."""

        def look() -> dict[str, Any] | None:
            status: dict[str, Any] = self.emr.describe_cluster(ClusterId=cluster)["Cluster"]["Status"]
            return status if not states or status["State"] in states else None

        return until(look)

    def step(self, cluster: str, step_id: str, *states: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            status: dict[str, Any] = self.emr.describe_step(ClusterId=cluster, StepId=step_id)["Step"]["Status"]
            return status if status["State"] in states else None

        return until(look)

    def run(self, cluster: str, *words: str, **more: str) -> tuple[str, dict[str, Any]]:
        """A step's id, and its status at the end."""
        (step_id,) = self.add(cluster, step(*words, **more))
        return step_id, self.step(cluster, step_id, "COMPLETED", "FAILED", "CANCELLED", "INTERRUPTED")

    def log(self, cluster: str, name: str) -> str:
        stored = self.s3.get_object(Bucket="logs", Key=f"emr/{cluster}/{name}.gz")["Body"].read()
        return gzip.decompress(stored).decode()

    def log_names(self, cluster: str) -> list[str]:
        found = self.s3.list_objects_v2(Bucket="logs", Prefix=f"emr/{cluster}/").get("Contents", [])
        return [each["Key"].removeprefix(f"emr/{cluster}/") for each in found]

    def end(self, *clusters: str) -> None:
        self.emr.terminate_job_flows(JobFlowIds=list(clusters))


@pytest.fixture(scope="module")
def world(serve: Serve) -> World:
    return World.at(serve("embedded.aws.cluster", cores=2))


@pytest.fixture(scope="module")
def ready(world: World) -> str:
    """A cluster that several tests add steps to."""
    cluster = world.create(LogUri="s3n://logs/emr", StepConcurrencyLevel=1)
    world.cluster(cluster, "WAITING")
    return cluster


@pytest.fixture(scope="module")
def early(world: World) -> dict[str, str]:
    """Clusters that take their time by themselves, all begun at once."""
    slow = step("python", "-c", "import time; time.sleep(0.5)")
    in_transit = {"TLSCertificateConfiguration": {"S3Object": "s3://programs/missing.zip"}}
    secure = json.dumps({"EncryptionConfiguration": {"InTransitEncryptionConfiguration": in_transit}})
    world.emr.create_security_configuration(Name="secure", SecurityConfiguration=secure)
    return {
        "passes": world.create(slow, step("pwd"), stays=False, LogUri="s3://logs/emr/"),
        "idles": world.create(step("true"), AutoTerminationPolicy={"IdleTimeout": 1}),
        "has no role": world.create(JobFlowRole="nobody"),
        "has no certificates": world.create(SecurityConfiguration="secure"),
        "has no logs": world.create(step("echo", "x"), stays=False, LogUri="s3://no-such-bucket/"),
        "is busy": world.create(step(*words_for_a_process("interrupted")), step("true"), LogUri="s3://logs/emr/"),
        "works side by side": world.create(
            *(step(*words_for_a_process(key)) for key in ("one", "two")), StepConcurrencyLevel=2
        ),
        **{
            f"{action} {protected}": world.create(step("false", on_failure=action), step("true"), protected=protected)
            for action, protected, *_ in FAILURES
        },
    }


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def words_for_a_process(key: str) -> tuple[str, ...]:
    """A command that tells its process id in S3 and goes on for long."""
    tell = (
        f"import boto3, os, time; boto3.client('s3').put_object(Bucket='programs', Key='{key}', Body=str(os.getpid()))"
    )
    return "python", "-c", f"{tell}; time.sleep(60)"


def told_pid(world: World, key: str) -> int:
    def look() -> int | None:
        try:
            return int(world.s3.get_object(Bucket="programs", Key=key)["Body"].read())
        except world.s3.exceptions.NoSuchKey:
            return None

    return until(look)


def test_a_cluster_waits_for_steps_until_it_is_terminated(world: World) -> None:
    cluster = world.create()
    assert world.cluster(cluster)["State"] in {"STARTING", "BOOTSTRAPPING"}
    waiting = world.cluster(cluster, "WAITING")
    assert waiting["StateChangeReason"] == {"Message": "Cluster ready to run steps."}
    assert waiting["Timeline"]["ReadyDateTime"] > waiting["Timeline"]["CreationDateTime"]
    world.end(cluster)
    assert world.cluster(cluster)["State"] == "TERMINATING"
    ended = world.cluster(cluster, "TERMINATED")
    assert ended["StateChangeReason"] == {"Code": "USER_REQUEST", "Message": "Terminated by user request"}
    assert "EndDateTime" in ended["Timeline"]
    listed = world.emr.get_paginator("list_clusters").paginate(ClusterStates=["WAITING", "STARTING"])
    assert cluster not in {each["Id"] for page in listed for each in page["Clusters"]}


def test_a_cluster_that_need_not_stay_runs_its_steps_in_order_and_ends(world: World, early: dict[str, str]) -> None:
    cluster = early["passes"]
    ended = world.cluster(cluster, "TERMINATED")
    assert ended["StateChangeReason"] == {"Code": "ALL_STEPS_COMPLETED", "Message": "Steps completed"}
    one, two = (world.step(cluster, step_id, "COMPLETED") for step_id in world.ids(cluster))
    assert one["Timeline"]["EndDateTime"] <= two["Timeline"]["StartDateTime"]
    assert not Path(world.log(cluster, f"steps/{world.ids(cluster)[1]}/stdout").strip()).exists()


def test_a_failed_step_says_how_it_ended_and_the_next_one_runs(world: World, ready: str) -> None:
    failed, status = world.run(ready, "bash", "-c", "echo out; echo no such day >&2; exit 3")
    assert (status["State"], world.run(ready, "true")[1]["State"]) == ("FAILED", "COMPLETED")
    assert status["FailureDetails"] == {
        "Reason": "Unknown Error.",
        "Message": "exit status 3: no such day",
        "LogFile": f"s3://logs/emr/{ready}/steps/{failed}/stderr.gz",
    }
    assert world.log(ready, f"steps/{failed}/stdout") == "out\n"
    assert world.log(ready, f"steps/{failed}/stderr") == "no such day\n"
    assert "Step failed with exitCode 3" in world.log(ready, f"steps/{failed}/controller")


def test_a_jar_or_a_program_that_is_not_here_fails_the_step(world: World, ready: str) -> None:
    _, no_jar = world.run(ready, "x", jar="s3://programs/x.jar")
    _, no_program = world.run(ready, "no-such-program")
    assert (no_jar["State"], no_program["State"]) == ("FAILED", "FAILED")
    assert "command-runner.jar" in no_jar["FailureDetails"]["Message"]
    assert "no-such-program" in no_program["FailureDetails"]["Message"]


def test_an_archive_that_the_nodes_cannot_read_fails_the_step(world: World, ready: str) -> None:
    world.s3.put_object(Bucket="programs", Key="a.py", Body=b"")
    archive = ("--archives", "s3://programs/missing.tar.gz#environment")
    _, status = world.run(ready, "spark-submit", "--deploy-mode", "client", *archive, "s3://programs/a.py")
    assert status["State"] == "FAILED"
    assert "NoSuchKey" in status["FailureDetails"]["Message"]


def test_a_killed_driver_is_followed_by_another_whose_exit_status_is_the_steps(world: World, ready: str) -> None:
    world.s3.put_object(Bucket="programs", Key="driver.py", Body=_DRIVER.encode())
    words = (
        *("spark-submit", "--master", "yarn", "--deploy-mode", "cluster", "--num-executors", "3"),
        *("--conf", "spark.yarn.appMasterEnv.TOLD=it was told", "s3://programs/driver.py"),
        *("hdfs:///user/hadoop/state", "--master", "s3://x/y"),
    )
    (step_id,) = world.add(ready, step(*words))
    os.kill(told_pid(world, "driver"), signal.SIGKILL)
    message = world.step(ready, step_id, "FAILED")["FailureDetails"]["Message"]
    assert message == "exit status 8: going on: half done"
    said = world.log(ready, f"steps/{step_id}/stdout")
    assert f"assumed-role/node/{ready} it was told" in said
    assert "['--master', 's3://x/y']" in said
    assert said.endswith("going on: half done\n")
    assert "Driver 1 of at most 2 failed (killed by signal 9)" in world.log(ready, f"steps/{step_id}/stderr")
    drivers = [name for name in world.log_names(ready) if name.startswith("containers/") and "stdout" in name]
    assert [name.split("_")[-2] for name in drivers] == ["01", "02"]
    assert "spark.executor.instances=3" in world.log(ready, f"steps/{step_id}/controller")


def test_pending_and_running_steps_are_cancelled(world: World, ready: str) -> None:
    done, _ = world.run(ready, "true")
    running, pending, last = world.add(ready, step(*words_for_a_process("running")), step("true"), step("true"))
    pid = told_pid(world, "running")
    answer = world.emr.cancel_steps(
        ClusterId=ready, StepIds=[running, pending, done], StepCancellationOption="SEND_INTERRUPT"
    )
    statuses = {info["StepId"]: info["Status"] for info in answer["CancelStepsInfoList"]}
    assert statuses == {running: "SUBMITTED", pending: "SUBMITTED", done: "FAILED"}
    assert answer["CancelStepsInfoList"][2]["Reason"]
    world.step(ready, running, "CANCELLED")
    world.step(ready, pending, "CANCELLED")
    world.step(ready, last, "COMPLETED")
    assert not alive(pid)


def interrupted(world: World, cluster: str, folder: Path, on_interrupt: str, option: str) -> dict[str, Any]:
    """Cancel a step that does something when it is interrupted; its status at the end."""
    waits = f"trap '{on_interrupt}' TERM; touch {folder}/ready; while :; do sleep 0.1; done"
    (step_id,) = world.add(cluster, step("bash", "-c", waits))
    until(lambda: (folder / "ready").exists() or None)
    world.emr.cancel_steps(ClusterId=cluster, StepIds=[step_id], StepCancellationOption=option)
    return world.step(cluster, step_id, "CANCELLED")


def test_a_process_that_ignores_an_interrupt_can_be_killed(world: World, ready: str, tmp_path: Path) -> None:
    interrupted(world, ready, tmp_path, f"sleep 0.5; touch {tmp_path}/survived", "TERMINATE_PROCESS")
    assert not (tmp_path / "survived").exists()


def test_a_cancelled_step_that_ends_well_was_cancelled_all_the_same(world: World, ready: str, tmp_path: Path) -> None:
    interrupted(world, ready, tmp_path, "exit 0", "SEND_INTERRUPT")


def test_nodes_that_ec2_cannot_lend_their_role_end_the_cluster(world: World) -> None:
    iam = client("iam", world.url)
    iam.create_role(RoleName="not-for-ec2", AssumeRolePolicyDocument=trusting("lambda"))
    iam.create_instance_profile(InstanceProfileName="strangers")
    iam.add_role_to_instance_profile(InstanceProfileName="strangers", RoleName="not-for-ec2")
    ended = world.cluster(world.create(JobFlowRole="strangers"), "TERMINATED_WITH_ERRORS")
    assert ended["StateChangeReason"]["Code"] == "VALIDATION_ERROR"
    assert "allows principal 'ec2.amazonaws.com'" in ended["StateChangeReason"]["Message"]


def test_logs_are_copied_while_a_step_runs(world: World, early: dict[str, str]) -> None:
    cluster = early["is busy"]
    (name,) = until(lambda: world.log_names(cluster) or None)
    assert name == f"steps/{world.ids(cluster)[0]}/controller.gz"
    world.step(cluster, world.ids(cluster)[0], "RUNNING")


def test_termination_interrupts_what_runs_and_cancels_what_is_pending(world: World, early: dict[str, str]) -> None:
    cluster, pid = early["is busy"], told_pid(world, "interrupted")
    assert world.cluster(cluster, "RUNNING")["StateChangeReason"] == {"Message": "Running step"}
    world.end(cluster)
    with pytest.raises(ClientError, match="shutting down, terminated, or finished may not be modified") as refused:
        world.add(cluster, step("true"))
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    world.cluster(cluster, "TERMINATED")
    running, pending = world.ids(cluster)
    world.step(cluster, running, "INTERRUPTED")
    assert world.step(cluster, pending, "CANCELLED")["StateChangeReason"] == {"Message": "Job terminated"}
    assert not alive(pid)
    instances = [i["Ec2InstanceId"] for i in world.emr.list_instances(ClusterId=cluster)["Instances"]]
    described = client("ec2", world.url).describe_instances(InstanceIds=instances)["Reservations"]
    assert {i["State"]["Name"] for each in described for i in each["Instances"]} == {"terminated"}


def test_an_idle_cluster_ends_by_itself(world: World, early: dict[str, str]) -> None:
    cluster = early["idles"]
    policy = world.emr.get_auto_termination_policy(ClusterId=cluster)["AutoTerminationPolicy"]
    assert policy == {"IdleTimeout": 1}
    assert "idle" in world.cluster(cluster, "TERMINATED")["StateChangeReason"]["Message"]
    world.step(cluster, world.ids(cluster)[0], "COMPLETED")


@pytest.mark.parametrize(("on_failure", "protected", "state", "next_state"), FAILURES)
def test_a_failed_step_decides_over_the_rest(
    world: World, early: dict[str, str], on_failure: str, protected: bool, state: str, next_state: str
) -> None:
    cluster = early[f"{on_failure} {protected}"]
    first, second = world.ids(cluster)
    world.step(cluster, first, "FAILED")
    world.step(cluster, second, next_state)
    status = world.cluster(cluster, state)
    if state == "TERMINATED_WITH_ERRORS":
        assert status["StateChangeReason"] == {"Code": "STEP_FAILURE", "Message": "Shut down as step failed"}


def test_a_protected_cluster_is_not_terminated(world: World) -> None:
    cluster = world.create(protected=True)
    with pytest.raises(ClientError, match="termination protected"):
        world.end(cluster)
    assert world.emr.describe_cluster(ClusterId=cluster)["Cluster"]["TerminationProtected"] is True
    world.emr.set_termination_protection(JobFlowIds=[cluster], TerminationProtected=False)
    world.end(cluster)
    world.cluster(cluster, "TERMINATED")


def test_a_cluster_without_an_instance_profile_ends_with_errors(world: World, early: dict[str, str]) -> None:
    assert world.cluster(early["has no role"], "TERMINATED_WITH_ERRORS")["StateChangeReason"] == {
        "Code": "VALIDATION_ERROR",
        "Message": "Invalid InstanceProfile: nobody.",
    }


def test_steps_run_side_by_side_where_the_cluster_allows_it(world: World, early: dict[str, str]) -> None:
    assert told_pid(world, "one") != told_pid(world, "two")
    world.end(early["works side by side"])


def test_a_cluster_whose_logs_cannot_be_written_works_on(world: World, early: dict[str, str]) -> None:
    cluster = early["has no logs"]
    world.cluster(cluster, "TERMINATED")
    world.step(cluster, world.ids(cluster)[0], "COMPLETED")


def test_certificates_that_the_nodes_cannot_read_end_the_cluster(world: World, early: dict[str, str]) -> None:
    reason = world.cluster(early["has no certificates"], "TERMINATED_WITH_ERRORS")["StateChangeReason"]
    assert reason["Code"] == "BOOTSTRAP_FAILURE"
    assert "s3://programs/missing.zip" in reason["Message"]


def test_unknown_clusters_and_steps_are_refused_in_awss_words(world: World, ready: str) -> None:
    with pytest.raises(ClientError, match=r"ValidationException.*Specified job flow ID not valid"):
        world.end("j-NONE")
    with pytest.raises(ClientError, match=r"ValidationException.*Specified job flow ID not valid"):
        world.add("j-NONE", step("true"))
    with pytest.raises(ClientError, match=r"InvalidRequestException.*Cluster id 'j-NONE' is not valid"):
        world.emr.list_steps(ClusterId="j-NONE")
    with pytest.raises(ClientError, match=r"InvalidRequestException.*Step id 's-NONE' is not valid"):
        world.emr.describe_step(ClusterId=ready, StepId="s-NONE")
