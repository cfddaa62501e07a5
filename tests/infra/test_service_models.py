"""The validator itself: each kind of wrong value is found, and right ones are not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.service_models import Request, faults, request

JOB = {
    "JobName": "evening-ingest",
    "JobQueue": "arn:aws:batch:us-east-1:123456789012:job-queue/q",
    "JobDefinition": "arn:aws:batch:us-east-1:123456789012:job-definition/d:1",
    "ArrayProperties": {"Size": 4},
    "ContainerOverrides": {"Command": ["ingest"], "Environment": [{"Name": "A", "Value": "1"}]},
    "Tags": {"run": "evening"},
}
TRAINING = {
    "TrainingJobName": "evening-1",
    "RoleArn": "arn:aws:iam::123456789012:role/training",
    "AlgorithmSpecification": {"TrainingInputMode": "File", "TrainingImage": "registry/image:1"},
    "OutputDataConfig": {"S3OutputPath": "s3://models/out/"},
    "ResourceConfig": {"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 50},
    "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    "EnableManagedSpotTraining": False,
    "Environment": {"A": "x" * 512},
    "Tags": [{"Key": "straße", "Value": "a b_c:d"}],
}
CLUSTER = {"Name": "stockflow-evening", "Instances": {"KeepJobFlowAliveWhenNoSteps": True}}


def changed(base: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A copy with the value at a place of names by dots replaced, or left out for None."""
    name, _, below = place.partition(".")
    if below:
        return {**base, name: changed(base.get(name, {}), below, value)}
    rest = {key: item for key, item in base.items() if key != name}
    return rest if value is None else {**rest, name: value}


def job(place: str, value: Any) -> Request:
    return Request("batch", "SubmitJob", changed(JOB, place, value))


def training(place: str, value: Any) -> Request:
    return Request("sagemaker", "CreateTrainingJob", changed(TRAINING, place, value))


@pytest.mark.parametrize(
    "right",
    [
        Request("batch", "SubmitJob", JOB),
        Request("sagemaker", "CreateTrainingJob", TRAINING),
        Request("emr", "RunJobFlow", CLUSTER),
        training("ResourceConfig.VolumeSizeInGB", 0),
        training("AlgorithmSpecification.TrainingImage", "x" * 255),
    ],
)
def test_what_is_right_has_no_fault(right: Request) -> None:
    assert faults(right) == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (job("JobNam", "x"), ": JobNam is none of "),
        (job("jobName", "x"), ": jobName is none of "),
        (job("JobQueue", None), ": jobQueue is missing"),
        (job("ContainerOverrides.Environment", [{"name": "A"}]), ".containerOverrides.environment[0]: name is none"),
        (job("ArrayProperties.Size", "4"), ".arrayProperties.size: '4' is no integer"),
        (job("ArrayProperties.Size", True), ".arrayProperties.size: True is no integer"),
        (job("ContainerOverrides.Command", "ingest"), ".containerOverrides.command: 'ingest' is no list"),
        (job("ContainerOverrides.Command", [1]), ".containerOverrides.command[0]: 1 is no string"),
        (job("ContainerOverrides", []), ".containerOverrides: [] is no structure"),
        (job("Tags", {"": "x"}), ".tags.: 0 is not within 1 and 128"),
        (job("Tags", {str(n): "" for n in range(51)}), ".tags: 51 is not within 1 and 50"),
        (training("EnableManagedSpotTraining", "true"), ": 'true' is no boolean"),
        (training("AlgorithmSpecification.TrainingInputMode", "Files"), "'Files' is none of Pipe, File, FastFile"),
        (training("ResourceConfig.InstanceType", "ml.g3.8xlarge"), "'ml.g3.8xlarge' is none of ml.m4.xlarge"),
        (training("ResourceConfig.VolumeSizeInGB", -1), ": -1 is not within 0 and None"),
        (training("StoppingCondition.MaxRuntimeInSeconds", 1.5), ": 1.5 is no integer"),
        (training("TrainingJobName", ""), ": 0 is not within 1 and 63"),
        (training("TrainingJobName", "x" * 64), ": 64 is not within 1 and 63"),
        (training("TrainingJobName", "under_score"), "'under_score' does not match"),
        (training("TrainingJobName", "evening-1\n"), "does not match"),
        (training("OutputDataConfig.S3OutputPath", "models/out"), "does not match"),
        (training("Environment", {"A": "x" * 513}), ".Environment.A: 513 is not within 0 and 512"),
        (training("Environment", {"1A": ""}), ".Environment.1A: '1A' does not match"),
        (training("Tags", [{"Key": "a", "Value": "50 %"}]), ".Tags[0].Value: '50 %' does not match"),
        (Request("emr", "RunJobFlow", {**CLUSTER, "LogUri": "s3://\x07"}), ".LogUri: 's3://\\x07' does not match"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(wrong: Request, told: str) -> None:
    assert told in faults(wrong)[0]
    assert len({fault.partition(": ")[0] for fault in faults(wrong)}) == 1


def test_an_integration_s_parameters_become_those_of_the_api() -> None:
    step = {"Name": "s", "HadoopJarStep": {"Jar": "command-runner.jar"}}
    made = [
        request("arn:aws:states:::elasticmapreduce:addStep.sync", {"ClusterId": "j-1", "Step": step}),
        request("arn:aws:states:::elasticmapreduce:terminateCluster", {"ClusterId": "j-1"}),
        request("arn:aws:states:::elasticmapreduce:createCluster.sync", CLUSTER),
        request("arn:aws:states:::lambda:invoke", {"FunctionName": "f", "Payload": {"a": 1}}),
    ]
    assert made == [
        ("emr", "AddJobFlowSteps", {"JobFlowId": "j-1", "Steps": [step]}),
        ("emr", "TerminateJobFlows", {"JobFlowIds": ["j-1"]}),
        ("emr", "RunJobFlow", CLUSTER),
        ("lambda", "Invoke", {"FunctionName": "f", "Payload": '{"a": 1}'}),
    ]
    assert [faults(each) for each in made] == [[], [], [], []]


def test_what_an_integration_does_not_take_is_refused() -> None:
    create = "arn:aws:states:::elasticmapreduce:createCluster.sync"
    for cluster in ({**CLUSTER, "Steps": []}, {**CLUSTER, "Instances": {}}):
        with pytest.raises(ValueError, match="createCluster takes no Steps, and needs"):
            request(create, cluster)
    with pytest.raises(KeyError):
        request("arn:aws:states:::batch:submitjob.sync", JOB)
