"""Code that is called: Lambda, Step Functions, the scheduler."""

from __future__ import annotations

from typing import Any, Final

from moto.awslambda.models import LambdaFunction, lambda_backends

from embedded.aws.account import ACCOUNT, REGION
from embedded.aws.deployment.parameters import check_known
from embedded.aws.deployment.resources import Made, Mended, Rule, Wanted


def _function(wanted: Wanted) -> Made:
    name = wanted.named("FunctionName")
    properties = wanted.properties.without("LoggingConfig")
    logging = wanted.properties.get("LoggingConfig", {})
    check_known(logging, ("LogGroup",), "LoggingConfig")
    check_known(properties["Code"], ("S3Bucket", "S3Key", "ImageUri"), "Code")
    arn = wanted.api.call("lambda", "create_function", {**properties, "FunctionName": name})["FunctionArn"]
    if "LogGroup" in logging:
        lambda_backends[ACCOUNT][REGION].get_function(name).logs_group_name = logging["LogGroup"]
    return Made(name, {"Arn": arn})


def _event_invoke_config(wanted: Wanted) -> Made:
    wanted.api.call("lambda", "put_function_event_invoke_config", wanted.properties)
    return Made(wanted.name)


def _state_machine(wanted: Wanted) -> Made:
    properties = wanted.properties.without("DefinitionString", "StateMachineName", "StateMachineType")
    properties |= {"Name": wanted.named("StateMachineName"), "Definition": wanted.properties["DefinitionString"]}
    properties["Type"] = wanted.properties.get("StateMachineType", "STANDARD")
    arn = wanted.api.call("stepfunctions", "create_state_machine", properties)["stateMachineArn"]
    return Made(arn, {"Arn": arn, "Name": properties["Name"]})


def _schedule(wanted: Wanted) -> Made:
    name = wanted.named("Name")
    arn = wanted.api.call("scheduler", "create_schedule", {**wanted.properties, "Name": name})["ScheduleArn"]
    return Made(name, {"Arn": arn})


def _say_where_functions_log() -> None:
    configuration = LambdaFunction.get_configuration

    def with_log_group(function: Any, on_create: bool = False) -> dict[str, Any]:
        group = {"LogFormat": "Text", "LogGroup": function.logs_group_name}
        return {**configuration(function, on_create), "LoggingConfig": group}

    LambdaFunction.get_configuration = with_log_group


RULES: Final = (
    Rule(
        "lambda-function",
        "AWS::Lambda::Function",
        "architecture, tracing and tags are lost, and the log group is by the API too",
        _function,
    ),
    Rule("lambda-event-invoke-config", "AWS::Lambda::EventInvokeConfig", "the type is left out", _event_invoke_config),
    Rule(
        "states-state-machine",
        "AWS::StepFunctions::StateMachine",
        "it is created where its API does not look when executions are carried out, without logging and tracing",
        _state_machine,
    ),
    Rule("scheduler-schedule", "AWS::Scheduler::Schedule", "the type is left out", _schedule),
    Mended(
        "lambda-logging-config", "the API does not say into which log group a function writes", _say_where_functions_log
    ),
)
