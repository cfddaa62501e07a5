"""What an operator looks at, and what calls one: a dashboard and alarms."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from app import contract
from infra.settings import ObservabilitySettings
from infra.workflow import Workflow

_MINUTE = Duration.minutes(1)
_FIVE_MINUTES = Duration.minutes(5)
_FLEET_LEFT_H = 3
_HALF, _THIRD = 12, 8


class Observability(Construct):
    """dashboard: one for the deployment; alarms: all of them tell the topic."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: ObservabilitySettings,
        workflow: Workflow,
        deployment: str,
        fleet_group: str | None,
        tags: Sequence[str],
    ) -> None:
        super().__init__(scope, construct_id)
        self._topic = workflow.topic
        machine = workflow.machine
        cut_short = cloudwatch.MathExpression(
            expression="failed + timed_out + aborted",
            using_metrics={
                "failed": machine.metric_failed(period=_FIVE_MINUTES),
                "timed_out": machine.metric_timed_out(period=_FIVE_MINUTES),
                "aborted": machine.metric_aborted(period=_FIVE_MINUTES),
            },
            period=_FIVE_MINUTES,
            label="executions that did not succeed",
        )
        lag = _metric(deployment, contract.METRIC_STREAM_LAG, "Maximum")
        made = _metric(deployment, contract.METRIC_PREDICTIONS, "Sum", Duration.minutes(settings.stale_min))
        lost = workflow.lost_clean_ups.metric_approximate_number_of_messages_visible(period=_FIVE_MINUTES)
        self._alarm("ExecutionFailed", cut_short, above=0)
        self._alarm(
            "CoverageLow", _metric(deployment, contract.METRIC_COVERAGE, "Minimum"), below=settings.min_coverage
        )
        self._alarm("StreamLag", lag, above=settings.max_stream_lag_s, periods=3)
        self._alarm("PredictionsStale", made, below=1)
        refused = _metric(deployment, contract.METRIC_MODEL_REFUSED, "Maximum")
        self._alarm("ModelRefused", refused, above=0)
        self._alarm("CleanUpLost", lost, above=0)
        if fleet_group:
            self._alarm("FleetLeft", _in_service(fleet_group), above=0, periods=_FLEET_LEFT_H)
        self.dashboard = _dashboard(self, deployment, machine, tags)

    def _alarm(
        self,
        name: str,
        metric: cloudwatch.IMetric,
        *,
        above: float | None = None,
        below: float | None = None,
        periods: int = 1,
    ) -> None:
        """An alarm after so many `periods` in a row; no data is no alarm, since most of the time nothing runs."""
        compare = cloudwatch.ComparisonOperator
        alarm = cloudwatch.Alarm(
            self,
            name,
            metric=metric,
            threshold=above if above is not None else float(below or 0),
            comparison_operator=compare.GREATER_THAN_THRESHOLD if above is not None else compare.LESS_THAN_THRESHOLD,
            evaluation_periods=periods,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        alarm.add_alarm_action(actions.SnsAction(self._topic))


def _dashboard(
    scope: Construct, deployment: str, machine: sfn.StateMachine, tags: Sequence[str]
) -> cloudwatch.Dashboard:
    rows: list[list[cloudwatch.IWidget]] = [
        [
            _graph(
                "Executions",
                _HALF,
                machine.metric_started(),
                machine.metric_succeeded(),
                machine.metric_failed(),
                machine.metric_aborted(),
            ),
            cloudwatch.TextWidget(markdown=_cost_text(tags), width=_HALF, height=6),
        ],
        [
            _graph(
                "Coverage: share of tickers with bars", _THIRD, _metric(deployment, contract.METRIC_COVERAGE, "Minimum")
            ),
            _graph("Requests to Yahoo", _THIRD, _metric(deployment, contract.METRIC_REQUESTS, "Sum")),
            _graph("Answers 429", _THIRD, _metric(deployment, contract.METRIC_RATE_LIMITED, "Sum")),
        ],
        [_graph(name, 6, _training(name)) for name in contract.TRAINING_METRICS],
        [
            _graph("Stream lag, seconds", _HALF, _metric(deployment, contract.METRIC_STREAM_LAG, "Maximum")),
            _graph("Predictions a minute", _HALF, _metric(deployment, contract.METRIC_PREDICTIONS, "Sum")),
        ],
        [
            _graph("Micro-batch, seconds", _HALF, _metric(deployment, contract.METRIC_BATCH, "Maximum")),
            _graph(
                "Ticks a minute that were not simply taken",
                _HALF,
                *(_metric(deployment, name, "Sum") for name in _ODD_TICKS),
            ),
        ],
    ]
    return cloudwatch.Dashboard(scope, "Dashboard", widgets=rows)


_ODD_TICKS = (contract.METRIC_LATE, contract.METRIC_DUPLICATE, contract.METRIC_REVISED, contract.METRIC_SKIPPED)


def _metric(deployment: str, name: str, statistic: str, period: Duration = _MINUTE) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        dimensions_map={contract.METRICS_DIMENSION: deployment},
        namespace=contract.METRICS_NAMESPACE,
        metric_name=name,
        statistic=statistic,
        period=period,
    )


def _training(name: str) -> cloudwatch.MathExpression:
    """A line for each training job: their names are made while the system runs."""
    schema = "{/aws/sagemaker/TrainingJobs,TrainingJobName}"
    return cloudwatch.MathExpression(
        expression=f"SEARCH('{schema} MetricName=\"{name}\"', 'Average', 60)", label="", using_metrics={}
    )


def _in_service(group: str) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace="AWS/AutoScaling",
        metric_name="GroupInServiceInstances",
        dimensions_map={"AutoScalingGroupName": group},
        statistic="Minimum",
        period=Duration.hours(1),
    )


def _graph(title: str, width: int, *metrics: cloudwatch.IMetric) -> cloudwatch.GraphWidget:
    return cloudwatch.GraphWidget(title=title, width=width, height=6, left=list(metrics))


def _cost_text(tags: Sequence[str]) -> str:
    listed = "\n".join(f"- `{tag}`" for tag in tags)
    return (
        "## Cost\nEverything this deployment makes carries the tags\n\n"
        f"{listed}\n\nActivate them under Billing, Cost allocation tags, and group by them in Cost Explorer."
    )
