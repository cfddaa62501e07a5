"""An execution read from Step Functions' history, its phases, and how it is shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from embedded.execution import Execution, read_states
from embedded.phase_logs import readable
from embedded.phases import read_phases
from embedded.screen import StateNote

START = datetime(2026, 3, 16, 20, 0, tzinfo=UTC)


class History:
    """Events as GetExecutionHistory has them, one a second."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def add(self, after: int, **details: Any) -> int:
        number = len(self.events) + 1
        self.events.append(
            {"id": number, "previousEventId": after, "timestamp": START + timedelta(seconds=number), **details}
        )
        return number

    def enter(self, after: int, name: str) -> int:
        return self.add(after, stateEnteredEventDetails={"name": name})

    def task(self, after: int, job: str = "", error: str = "") -> int:
        last = self.add(
            after, taskScheduledEventDetails={"resourceType": "batch", "resource": "submitJob.sync", "parameters": "{}"}
        )
        if job:
            last = self.add(last, taskSubmittedEventDetails={"output": f'{{"JobId": "{job}"}}'})
        if error:
            last = self.add(last, taskFailedEventDetails={"error": error, "cause": "because"})
        return last

    def leave(self, after: int, name: str) -> int:
        return self.add(after, stateExitedEventDetails={"name": name})

    def execution(self, status: str = "RUNNING") -> Execution:
        stopped = None if status == "RUNNING" else START + timedelta(seconds=100)
        return Execution("arn", "name", status, START, stopped, tuple(read_states(self.events, stopped)))


def test_a_state_has_its_times_its_tries_and_what_its_last_task_started() -> None:
    history = History()
    failed = history.task(history.enter(0, "BuildDataset"), job="first", error="Batch.ServerException")
    history.leave(history.task(failed, job="second"), "BuildDataset")
    execution = history.execution("SUCCEEDED")
    (state,) = execution.states
    assert (state.attempts, state.submitted, state.error, state.seconds) == (2, {"JobId": "second"}, "", 6)
    assert execution.retries == 1


def test_branches_that_run_side_by_side_are_told_apart() -> None:
    history = History()
    both = history.enter(0, "ServeSession")
    stream, feed = history.enter(both, "StreamPredictions"), history.enter(both, "FeedTicks")
    stream_task, feed_task = history.task(stream, job="stream"), history.task(feed, job="feed")
    history.leave(feed_task, "FeedTicks")
    history.add(stream_task, taskFailedEventDetails={"error": "States.TaskFailed", "cause": "it broke"})
    execution = history.execution("FAILED")
    assert {state.name: state.submitted.get("JobId") for state in execution.states} == {
        "ServeSession": None, "StreamPredictions": "stream", "FeedTicks": "feed",
    }  # fmt: skip
    failed = execution.failed_state()
    assert failed is not None
    assert (failed.name, failed.cause) == ("StreamPredictions", "it broke")


def test_a_failed_branch_fails_what_it_is_in_and_interrupts_the_other() -> None:
    history = History()
    both = history.enter(0, "ServeSession")
    history.task(history.enter(both, "StreamPredictions"), job="stream")
    failed = history.task(history.enter(both, "FeedTicks"), job="feed", error="States.TaskFailed")
    left = history.add(failed, type="ParallelStateFailed")
    assert outcomes(history.execution()) == {
        "ServeSession": ("failed", left - both), "StreamPredictions": ("interrupted", left - both - 1),
        "FeedTicks": ("failed", left - failed + 3),
    }  # fmt: skip
    history.enter(left, "Release")
    assert outcomes(history.execution())["Release"] == ("running", None)


def test_a_caught_parallel_state_that_is_exited_has_failed() -> None:
    history = History()
    run = history.enter(0, "Run")
    left = history.add(history.task(history.enter(run, "PlanShards"), error="E"), type="ParallelStateFailed")
    history.enter(history.leave(left, "Run"), "Release")
    assert [status for status, _ in outcomes(history.execution()).values()] == ["failed", "failed", "running"]


def test_the_clock_of_a_state_stops_with_the_execution() -> None:
    history = History()
    history.task(history.enter(0, "TrainModel"))
    assert outcomes(history.execution("ABORTED")) == {"TrainModel": ("interrupted", 99)}
    history.task(2, error="States.TaskFailed")
    assert outcomes(history.execution("RUNNING")) == {"TrainModel": ("running", None)}  # it may be tried again
    assert outcomes(history.execution("FAILED")) == {"TrainModel": ("failed", 99)}


def outcomes(execution: Execution) -> dict[str, tuple[str, float | None]]:
    return {state.name: (state.status, state.seconds) for state in execution.states}


def test_what_released_it_is_not_what_failed() -> None:
    history = History()
    last = history.task(history.enter(0, "TrainModel"), error="States.TaskFailed")
    last = history.leave(history.task(history.enter(last, "Release")), "Release")
    history.enter(last, "Failed")
    failed = history.execution("FAILED").failed_state()
    assert failed is not None
    assert failed.name == "TrainModel"
    phases = {phase.name: phase.status for phase in read_phases(history.execution("FAILED"))}
    assert phases == {
        "ingest": "not started", "dataset": "not started", "train": "failed",
        "promote": "not started", "serve": "not started",
    }  # fmt: skip


def test_an_aborted_execution_was_interrupted_in_the_state_that_it_was_in() -> None:
    history = History()
    last = history.leave(history.task(history.enter(0, "BuildDataset")), "BuildDataset")
    history.task(history.enter(last, "TrainModel"))
    phases = {phase.name: phase.status for phase in read_phases(history.execution("ABORTED"))}
    assert (phases["dataset"], phases["train"]) == ("succeeded", "interrupted")
    assert {phase.name: phase.status for phase in read_phases(history.execution())}["train"] == "running"


def test_lines_of_tasks_are_summed_up() -> None:
    note = StateNote()
    for shard, done in (("IngestShards 0", 3), ("IngestShards 1", 1), ("IngestShards 0", 5)):
        assert note.say(shard, f'{{"phase": "ingest", "done": {done}, "total": 9, "note": "tickers"}}')
    assert str(note) == "6/18 tickers"
    assert note.say("IngestShards 1", '{"phase": "ingest", "done": 9, "total": 9, "note": "tickers"}')
    assert note.shards(3) == ["1/3 shards done", "shard 0: 5/9", "shard 1: 9/9"]
    note = StateNote()
    assert note.say("TrainModel", "epoch=1 loss=0.98765 validation_loss=0.9")
    assert note.say("TrainModel", "epoch=2 loss=0.9 validation_loss=0.9")
    assert not note.say("TrainModel", "anything else")
    assert str(note) == "loss 0.9877 0.9000"


def test_predictions_of_the_last_minute_and_the_lag_are_shown() -> None:
    note = StateNote()
    for at_s, count in ((0, 100), (30, 200), (70, 300)):
        note.say("S", f'{{"_aws": {{"Timestamp": {at_s * 1000}}}, "Predictions": {count}, "StreamLag": {at_s / 10}}}')
    note.say("S", '{"phase": "serve", "done": 0, "total": 775, "note": "predictions"}')
    assert str(note) == "500 predictions in the last minute, lag 7.0 s"


def test_lines_for_people_have_no_json() -> None:
    assert readable('{"phase": "feed", "done": 2, "total": 390, "note": "minutes fed"}') == "2/390 minutes fed"
    assert readable('{"_aws": {}, "Deployment": "d", "Coverage": 1.0}') == "Coverage 1"
    assert readable('{"other": 1}') == '{"other": 1}'
    assert readable("{no JSON") == "{no JSON"
