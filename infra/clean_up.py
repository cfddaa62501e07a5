"""What happens after an execution that did not succeed: its end is an event, the event calls the clean-up."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_destinations as destinations
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from infra import nag

_NOT_SUCCEEDED = ["ABORTED", "TIMED_OUT", "FAILED"]
"""ABORTED and TIMED_OUT are seen by no state. FAILED may come from an error that no Catch takes, such as a state that
grew too large, or after a release that failed."""
_PATIENCE = Duration.hours(2)


class CleanUp(Construct):
    """lost: events that could not be delivered, and those whose clean-up failed three times; an alarm watches it."""

    def __init__(
        self, scope: Construct, construct_id: str, *, machine: sfn.StateMachine, function: lambda_.Function
    ) -> None:
        super().__init__(scope, construct_id)
        self.lost = sqs.Queue(self, "Lost", encryption=sqs.QueueEncryption.SQS_MANAGED, enforce_ssl=True)
        nag.acknowledge(self.lost, "AwsSolutions-SQS3", "It is itself the queue of dead letters.")
        # EventBridge's own retries and dead letters cover the delivery only: an error of the function is Lambda's.
        function.configure_async_invoke(
            retry_attempts=2, max_event_age=_PATIENCE, on_failure=destinations.SqsDestination(self.lost)
        )
        events.Rule(
            self,
            "NotSucceeded",
            event_pattern=events.EventPattern(
                source=["aws.states"],
                detail_type=["Step Functions Execution Status Change"],
                detail={"status": _NOT_SUCCEEDED, "stateMachineArn": [machine.state_machine_arn]},
            ),
            targets=[
                targets.LambdaFunction(
                    function, dead_letter_queue=self.lost, max_event_age=_PATIENCE, retry_attempts=20
                )
            ],
        )
