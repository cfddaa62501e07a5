"""What the services of a deployment answer to the tasks of an execution.

The Lambdas' logic is the real one, on buckets in memory; the jobs leave what the real ones leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, Final

from app import contract
from app.ingest.plan import read_plan
from app.ingest.report import TickerReport
from app.storage import Bucket
from app.training.gate import decide, promote
from app.workflow.ingestion import check_coverage, plan_shards
from app.workflow.order import make_order
from app.workflow.session_table import SessionTable
from app.workflow.verify import verify_predictions
from tests.fakes import FakeS3
from tests.infra.deployed import ACCOUNT, REGION
from tests.infra.execution import Execution, Task, TaskFailed
from tests.infra.synthesised import Synthesised

NOW: Final = datetime(2026, 11, 19, 22, 30, tzinfo=UTC)
"""After the close of a Thursday."""
ONE_SHARD: Final[dict[str, Any]] = {"universe": "AAPL", "settings": {"ingest": {"shards": 1}}}
LARGEST: Final[dict[str, Any]] = {
    "universe": [f"TICK{number}" for number in range(500)],
    "run_id": "r" * 64,
    "training": {"instance_type": "ml.g4dn.12xlarge", "instances": 4, "processes": 8},
    "settings": {
        "ingest": {"shards": 500},
        "dataset": {"exclude_days": [f"2026-11-{day:02}" for day in range(2, 12)]},
    },
}
INPUTS: Final[Mapping[str, dict[str, Any]]] = {
    "nothing": {},
    **{phase: {"phases": [phase]} for phase in ("ingest", "dataset", "train", "serve")},
    "one shard": ONE_SHARD,
    "largest": LARGEST,
}
"""Inputs of executions, by what they ask for."""
CLUSTER: Final = "j-3H6EATEWWRWS"
_DAY: Final = date(2026, 11, 19)
_TICKS = 390
_MODEL = "model-1"
_EARLIER = "noon"
EARLIER_SKILL: Final = 0.05
"""Of the model that serves when there was an earlier run."""


@dataclass
class Services:
    """Answers for one execution. skill: of the model that is trained; failing: errors of tasks, by their states.

    calls: of S3 by each of the Lambdas, (Lambda, action, bucket, key). answers: last ones, by the tasks' states.
    """

    app: Synthesised
    skill: float = 0.1
    failing: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    calls: list[tuple[str, str, str, str]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._caller = ""
        self.market, self.models, self.predictions = (
            Bucket(role, _WatchedS3(partial(self._note, role))) for role in ("Market", "Model", "Predictions")
        )

    def _note(self, bucket: str, action: str, key: str) -> None:
        if self._caller:
            self.calls.append((self._caller, action, bucket, key))

    def after_an_earlier_run(self) -> Services:
        """As if run noon had left bars, a dataset and a promoted model; returns itself."""
        self.market.put(contract.bars_key(_DAY, contract.compact_part("r")), b"")
        self.models.put_json(contract.LATEST_DATASET_KEY, {"run_id": _EARLIER})
        self.models.put_json(contract.CURRENT_MODEL_KEY, {"model_id": f"{_EARLIER}-1"})
        return self

    def run(self, asked: Any, name: str = "evening") -> Execution:
        """The execution of this name with this input."""
        machine = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{self.app.name}"
        arn = f"{machine.replace(':stateMachine:', ':execution:')}:{name}"
        execution = {"Id": arn, "Name": name, "StartTime": NOW.isoformat(), "Input": asked}
        context = {"Execution": execution, "StateMachine": {"Id": machine, "Name": self.app.name}}
        return Execution(self.app.definition, self, context).run(asked)

    def __call__(self, task: Task) -> Any:
        """A task's result."""
        if task.state in self.failing:
            raise TaskFailed(*self.failing[task.state])
        self.answers[task.state] = self._answer(task)
        return self.answers[task.state]

    def _answer(self, task: Task) -> Any:
        match task.resource.removeprefix("arn:aws:states:::"):
            case "lambda:invoke":
                name = self.app.function_arns()[task.parameters["FunctionName"]]
                return {"ExecutedVersion": "$LATEST", "Payload": self._invoke(name, task.parameters["Payload"])}
            case "batch:submitJob.sync":
                self._work(task.parameters)
            case "sagemaker:createTrainingJob.sync":
                self._train(task.parameters["Environment"])
            case "elasticmapreduce:createCluster.sync":
                return {"ClusterId": CLUSTER}
        return {}

    def _invoke(self, name: str, event: dict[str, Any]) -> Any:
        logic: Mapping[str, Callable[[dict[str, Any]], Any]] = {
            "validate_input": self._order,
            "plan_shards": lambda order: plan_shards(
                *(order, self.market, self.models, self._table()),
                fleet=self.app.lambda_file("defaults.json")["fleet"],
            ),
            "check_coverage": lambda order: check_coverage(
                *(order, self.market), emit=lambda metrics: None, clock=lambda: NOW
            ),
            "gate_model": lambda order: decide(
                *(self.models, order["run_id"]), min_skill=order["settings"]["gate"]["min_skill"], now=NOW
            ).to_json(),
            "promote_model": lambda order: promote(
                *(self.models, order["run_id"], order["gate"]["model_id"], NOW), serving=order["gate"]["serving"]
            ),
            "verify_predictions": lambda order: verify_predictions(order["run_id"], self.market, self.predictions),
            "clean_up": lambda event: {"clusters": [CLUSTER], "of": [event["execution"], event["machine"]]},
        }
        self._caller = name
        try:
            return logic[name](event)
        finally:
            self._caller = ""

    def _order(self, event: Mapping[str, Any]) -> Any:
        return make_order(
            event["input"],
            event["execution"]["id"],
            event["machine"],
            defaults=self.app.lambda_file("defaults.json"),
            schema=self.app.lambda_file("settings_schema.json"),
            table=self._table(),
            models=self.models,
            now=NOW,
            sp500=lambda: (),
        )

    def _table(self) -> SessionTable:
        return SessionTable.load(self.app.lambda_folder() / "sessions.json")

    def _work(self, job: Mapping[str, Any]) -> None:
        """What a Batch job leaves."""
        run_id = batch_environment(job)[contract.ENV_RUN_ID]
        match job["ContainerOverrides"]["Command"]:
            case ["ingest", "--only", "compact"]:
                self.market.put(contract.bars_key(_DAY, contract.compact_part("r")), b"")
            case ["ingest", *_]:
                self._ingest(run_id, job.get("ArrayProperties", {"Size": 1})["Size"])
            case ["dataset"]:
                self.models.put_json(contract.LATEST_DATASET_KEY, {"run_id": run_id})
            case ["feed"]:
                self._serve(run_id)

    def _ingest(self, run_id: str, children: int) -> None:
        plan = read_plan(run_id, self.market)
        assert children == len(plan.shards)
        days = {session.day.isoformat(): "complete" for session in plan.sessions}
        for shard in plan.shards:
            reports = [TickerReport(name, "complete", rows=390, days=days) for name in shard.tickers]
            tickers = [report.to_json() for report in reports]
            self.market.put_json(contract.manifest_key(run_id, shard.name), {"tickers": tickers})

    def _train(self, environ: Mapping[str, str]) -> None:
        assert self.models.get_json(contract.LATEST_DATASET_KEY)["run_id"] == environ[contract.ENV_DATASET_RUN]
        for name in contract.MODEL_FILES:
            self.models.put(contract.model_key(_MODEL, name), b"")
        metrics = {"validation": self._judged(), "test": self._judged(), "current": self._compared()}
        self.models.put_json(contract.model_key(_MODEL, contract.MODEL_METRICS), metrics)
        self.models.put_json(contract.candidate_key(environ[contract.ENV_RUN_ID]), {"model_id": _MODEL, "sha256": {}})

    def _judged(self) -> dict[str, Any]:
        """Metrics of a split."""
        horizons = {"5": {"windows": 1000, "skill": self.skill}}
        return {"windows": 1000, "days": 2, "skill": self.skill, "horizons": horizons}

    def _compared(self) -> dict[str, Any] | None:
        """The model that serves, on the windows of the one that is trained."""
        if not self.models.exists(contract.CURRENT_MODEL_KEY):
            return None
        model_id = self.models.get_json(contract.CURRENT_MODEL_KEY)["model_id"]
        return {"model_id": model_id, "skill": EARLIER_SKILL, "windows": 1000, "candidate_skill": self.skill}

    def _serve(self, run_id: str) -> None:
        served = {"ticks": _TICKS, "predictions": 2 * _TICKS, "horizons_min": [1, 5]}
        served |= {"day": _DAY.isoformat(), "model_id": _MODEL}
        self.market.put_json(contract.feed_end_key(run_id), {"ticks": _TICKS})
        self.market.put_json(contract.result_key(run_id, "serve"), served)
        self.predictions.put(contract.predictions_key(_DAY, run_id, 0), b"")
        latest = {"schema_version": contract.PREDICTIONS_SCHEMA_VERSION}
        self.predictions.put_json(contract.LATEST_PREDICTIONS_KEY, latest)


class _WatchedS3(FakeS3):
    """S3 in memory that tells of each call: the action that IAM knows it by, and the key."""

    def __init__(self, note: Callable[[str, str], None]) -> None:
        super().__init__()
        self._note = note

    def put_object(self, **call: Any) -> dict[str, Any]:
        self._note("s3:PutObject", call["Key"])
        return super().put_object(**call)

    def get_object(self, **call: Any) -> dict[str, Any]:
        self._note("s3:GetObject", call["Key"])
        return super().get_object(**call)

    def head_object(self, **call: Any) -> dict[str, Any]:
        self._note("s3:GetObject", call["Key"])
        return super().head_object(**call)

    def delete_object(self, **call: Any) -> None:
        self._note("s3:DeleteObject", call["Key"])
        super().delete_object(**call)

    def paginate(self, **call: Any) -> Iterator[dict[str, Any]]:
        self._note("s3:ListBucket", "")
        return super().paginate(**call)


def batch_environment(job: Mapping[str, Any]) -> dict[str, str]:
    """The variables that a Batch job is submitted with."""
    return {pair["Name"]: pair["Value"] for pair in job["ContainerOverrides"]["Environment"]}


def run(app: Synthesised, asked: Mapping[str, Any], **services: Any) -> Execution:
    """An execution with this input after an earlier run, so that each phase can be asked for alone."""
    return Services(app, **services).after_an_earlier_run().run(dict(asked))


def tasks(app: Synthesised, asked: Mapping[str, Any]) -> dict[str, Task]:
    """The tasks of an execution that succeeds, by the names of their states."""
    done = run(app, asked)
    assert done.status == "SUCCEEDED"
    return {task.state: task for task in done.tasks}
