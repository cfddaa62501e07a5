"""What is read of a run, from objects that its phases wrote and from a state machine."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from app import contract
from app.clock import fixed_clock
from app.errors import StorageError
from app.storage import Bucket
from app.training.checkpoint import Checkpoint, Checkpoints
from app.training.publish import begin_training
from dashboard.execution import DIED, Run
from dashboard.machine import Machine
from dashboard.snapshot import Reader, Snapshot
from dashboard.source import Source
from tests.dashboard.planted import (
    HORIZONS,
    MINUTES,
    MODEL,
    NOW,
    OLDER,
    PREDICTED,
    RUN,
    SESSIONS,
    TICKERS,
    Buckets,
    model_metrics,
    tick_key,
    write_health,
    write_predictions,
    write_run,
)
from tests.dashboard.stepfunctions import MACHINE, FakeStates
from tests.fakes import FakeS3, client_error


@pytest.fixture
def buckets() -> Buckets:
    return Buckets(*(Bucket(name, FakeS3()) for name in ("market", "model", "predictions")))


@pytest.fixture
def planted(buckets: Buckets) -> Buckets:
    write_run(buckets)
    return buckets


def reader(buckets: Buckets, states: FakeStates | None = None, now: datetime | None = None) -> Reader:
    machine = Machine(states, MACHINE) if states else None
    source = Source(buckets.market, buckets.models, buckets.predictions, machine, "here")
    return Reader(source, fixed_clock(now or datetime.now(UTC)))


def read(buckets: Buckets, states: FakeStates | None = None, run_id: str = "", now: datetime | None = None) -> Snapshot:
    return reader(buckets, states, now).read([run_id])[run_id]


def statuses(run: Run) -> list[str]:
    return [phase.status for phase in run.phases]


def test_empty_buckets_hold_no_run(buckets: Buckets) -> None:
    snapshot = read(buckets)
    assert (snapshot.run.run_id, snapshot.runs, snapshot.notes) == ("", [], [])
    assert set(statuses(snapshot.run)) == {"waiting"}


def test_phases_are_those_that_objects_tell_without_a_state_machine(planted: Buckets) -> None:
    run = read(planted).run
    assert [phase.name for phase in run.phases] == ["ingest", "dataset", "train", "promote", "serve"]
    assert statuses(run) == ["done", "done", "done", "done", "running"]
    assert run.phases[0].seconds == 12.5
    assert run.phases[0].note == "3,020 bars, 100% of tickers"
    assert run.phases[4].note == f"{MINUTES * len(PREDICTED) * len(HORIZONS):,} predictions"
    assert run.status == ""


def test_the_newest_run_is_shown_unless_another_is_asked_for(planted: Buckets) -> None:
    planted.market.put_json(contract.result_key("later", "train"), {"phase": "train", "wall_s": 1.0, "rows": 1})
    snapshot = read(planted)
    assert (snapshot.runs, snapshot.run.run_id) == (["later", RUN], "later")
    assert read(planted, run_id=RUN).run.run_id == RUN
    assert not len(snapshot.forecasts)


def test_predictions_of_another_run_whose_name_begins_alike_are_left_out(planted: Buckets) -> None:
    write_predictions(planted, range(3), run_id=f"{RUN}-more")
    assert len(read(planted, run_id=RUN).forecasts) == MINUTES * len(PREDICTED) * len(HORIZONS)


def test_shards_tell_what_their_tickers_got(planted: Buckets) -> None:
    shards = read(planted).run.shards
    assert [shard.planned for shard in shards] == [2, 2]
    assert [dict(shard.tickers) for shard in shards] == [{"complete": 2}, {"complete": 1, "partial": 1}]
    assert [shard.rows for shard in shards] == [1560, 1460]


def test_a_shard_without_a_manifest_is_open(planted: Buckets) -> None:
    second = read(planted).run.shards[1]
    planted.market.delete(contract.manifest_key(RUN, second.name))
    assert [shard.done for shard in read(planted).run.shards] == [True, False]


def test_coverage_is_the_share_of_each_days_minutes(planted: Buckets) -> None:
    coverage = read(planted).coverage
    assert coverage is not None
    assert coverage.days == [session.day.isoformat() for session in SESSIONS]
    assert list(coverage.share) == list(TICKERS)
    assert coverage.share["AAA"] == [1.0, 1.0]
    assert coverage.share["DDD"] == [1.0, pytest.approx(290 / 390)]
    (lack,) = coverage.lacks
    assert (lack.ticker, lack.status, dict(lack.days)) == ("DDD", "partial", {coverage.days[1]: "partial"})


def test_models_are_told_with_what_the_gate_decided(planted: Buckets) -> None:
    models = read(planted).models
    assert [model.model_id for model in models.rows] == [MODEL, OLDER]
    assert models.current == MODEL
    newer, older = models.rows
    assert (newer.run_id, newer.promoted, older.promoted) == (RUN, True, True)
    skill = model_metrics(0.4)["validation"]["skill"]
    assert newer.metrics is not None
    assert newer.metrics.validation.skill == newer.metrics.test.skill == skill
    assert newer.rival_skill == model_metrics(0.2)["validation"]["skill"]
    assert older.rival_skill is None
    assert "no model serves yet" in older.reason
    assert newer.card.startswith(f"# Model {MODEL}")


def test_a_model_that_was_not_promoted_says_so(planted: Buckets) -> None:
    key = contract.model_key(MODEL, contract.MODEL_DECISION)
    planted.models.put_json(key, {**planted.models.get_json(key), "promote": False, "reason": "worse"})
    snapshot = read(planted)
    assert (snapshot.models.rows[0].promoted, snapshot.models.rows[0].reason) == (False, "worse")
    assert snapshot.run.phases[3].note == "not promoted"


def test_losses_are_those_of_the_run_when_it_is_trained(planted: Buckets) -> None:
    training = read(planted).run.training
    assert training is not None
    assert (training.model_id, training.over) == (MODEL, True)
    assert [row["loss"] for row in training.history] == [2.0, 1.0, 2 / 3]


def test_losses_come_from_the_newest_checkpoint_while_a_run_is_trained(buckets: Buckets) -> None:
    write_run(buckets, trained=False)
    begin_training(buckets.models, RUN, MODEL, {"dataset": "d", "settings": {"epochs": 6}, "ranks": 2})
    checkpoints = Checkpoints(buckets.models, MODEL, {}, kept=2)
    history = [{"loss": 1.5, "validation_loss": 1.6}]
    for step in (10, 20):
        losses = np.array([[1.0, 1.2], [1.4, 1.6]], np.float32)
        checkpoints.save(Checkpoint(step, 1, 2, [], [], history, losses, {}))
    run = read(buckets).run
    assert run.training is not None
    assert (run.training.epochs, run.training.over, run.training.history) == (6, False, history)
    assert run.training.running == pytest.approx([1.2, 1.4])
    assert statuses(run)[2:4] == ["begun", "waiting"]


def test_the_streams_lag_is_from_the_stored_tick_to_the_prediction(planted: Buckets) -> None:
    stream = read(planted).run.stream
    assert stream is not None
    assert stream.state == "running"
    stored = next(info.modified for info in planted.market.objects(tick_key(MINUTES - 1)))
    assert stream.lag_s == (NOW - stored).total_seconds()
    assert stream.behind_min == 2
    assert (stream.health.counts["late"], stream.health.counts["duplicate"]) == (3, 1)


def test_a_stream_that_says_nothing_for_a_minute_has_died(planted: Buckets) -> None:
    write_health(planted.market, NOW)
    late = read(planted, now=NOW + timedelta(seconds=61)).run
    assert late.stream is not None
    assert (late.stream.state, statuses(late)[4]) == (DIED, "failed")
    early = read(planted, now=NOW + timedelta(seconds=59)).run.stream
    assert early is not None
    assert early.state == "running"


@pytest.mark.parametrize(("end", "status"), [("finished", "done"), ("stopped", "stopped"), ("failed", "failed")])
def test_a_stream_that_has_ended_says_how(planted: Buckets, end: str, status: str) -> None:
    key = contract.stream_health_key(RUN)
    planted.market.put_json(key, {**planted.market.get_json(key), "state": end})
    run = read(planted, now=datetime.now(UTC) + timedelta(hours=1)).run
    assert run.stream is not None
    assert (run.stream.state, statuses(run)[4]) == (end, status)


def test_a_run_that_only_serves_shows_the_losses_of_the_model_that_it_is_served_with(planted: Buckets) -> None:
    plan = planted.market.get_json(contract.plan_key(RUN))
    planted.market.put_json(contract.plan_key("later"), {**plan, "run_id": "later"})
    planted.market.put(contract.stream_health_key("later"), planted.market.get(contract.stream_health_key(RUN)))
    planted.market.put_json(contract.result_key("later", "serve"), {"phase": "serve", "wall_s": 9.0, "rows": 5})
    run = read(planted).run
    assert run.training is not None
    assert (run.run_id, run.training.model_id) == ("later", MODEL)
    assert statuses(run) == ["waiting", "waiting", "waiting", "waiting", "done"]


def test_without_ticks_in_s3_no_lag_is_told(planted: Buckets) -> None:
    for key in planted.market.keys(contract.TICKS_PREFIX):
        planted.market.delete(key)
    stream = read(planted).run.stream
    assert stream is not None
    assert (stream.lag_s, stream.behind_min) == (None, None)


def test_an_object_is_read_once_until_it_is_written_again(planted: Buckets) -> None:
    again = reader(planted)
    s3: Any = planted.predictions._client
    again.read([""])
    s3.gets.clear()
    snapshot = again.read([""])[""]
    assert s3.gets == []
    write_predictions(planted, range(MINUTES, MINUTES + 5))
    after = again.read([""])[""]
    assert [key for key, _ in s3.gets] == [contract.predictions_key(SESSIONS[-1].day, RUN, MINUTES)]
    assert len(after.forecasts) == len(snapshot.forecasts) + 5 * len(PREDICTED) * len(HORIZONS)
    assert after.marks["forecasts"] != snapshot.marks["forecasts"]
    assert after.marks["coverage"] == snapshot.marks["coverage"]


def test_what_nobody_understands_is_left_out_and_told(planted: Buckets) -> None:
    planted.models.put(contract.model_key(OLDER, contract.MODEL_METRICS), b'{"validation": 3}')
    planted.predictions.put(contract.predictions_key(SESSIONS[-1].day, RUN, 20), b"no Parquet")
    snapshot = read(planted)
    assert [model.metrics is None for model in snapshot.models.rows] == [False, True]
    assert len(snapshot.forecasts) == 20 * len(PREDICTED) * len(HORIZONS)
    assert len(snapshot.notes) == 2
    assert contract.model_key(OLDER, contract.MODEL_METRICS) in snapshot.notes[0]


def test_an_s3_that_refuses_is_an_error(planted: Buckets) -> None:
    refusing = replace(planted, predictions=Bucket("predictions", FakeS3(error=client_error("AccessDenied"))))
    with pytest.raises(StorageError, match="AccessDenied"):
        read(refusing)


# --- with a state machine ---------------------------------------------------------------------------------------------


def test_states_are_those_of_the_newest_execution_that_made_the_run(planted: Buckets) -> None:
    states = FakeStates()
    states.add("first", ["PlanShards"], status="FAILED", text=f'{{"run_id": "{RUN}"}}', error="Boom")
    states.add("second", ["ValidateInput", "PlanShards", "IfAsked", "IngestShards"], status="RUNNING",
               text=f'{{"run_id": "{RUN}"}}')  # fmt: skip
    run = read(planted, states, RUN).run
    assert (run.status, run.why) == ("RUNNING", "")
    assert [(state.name, state.status) for state in run.states] == [
        ("ValidateInput", "done"), ("PlanShards", "done"), ("IngestShards", "running"),
    ]  # fmt: skip
    assert statuses(run)[0] == "running"


def test_a_run_that_has_left_nothing_yet_is_known_by_its_execution(buckets: Buckets) -> None:
    states = FakeStates()
    states.add("just-begun", ["ValidateInput"], status="RUNNING")
    snapshot = read(buckets, states)
    assert (snapshot.run.run_id, snapshot.runs) == ("just-begun", ["just-begun"])
    assert set(statuses(snapshot.run)) == {"waiting"}


def test_why_an_execution_failed_is_told_with_its_state(planted: Buckets) -> None:
    states = FakeStates()
    states.add(RUN, ["PlanShards", "BuildDataset"], status="FAILED", error="TooFewBars")
    run = read(planted, states, RUN).run
    assert run.why == "BuildDataset: TooFewBars: as AWS tells it"
    assert statuses(run)[1] == "failed"


def test_an_execution_that_has_ended_is_asked_for_once(planted: Buckets) -> None:
    states = FakeStates()
    states.add(RUN, ["PlanShards"], status="SUCCEEDED")
    again = reader(planted, states)
    again.read([RUN])
    states.asked.clear()
    assert again.read([RUN])[RUN].run.status == "SUCCEEDED"
    assert states.asked == ["list_executions"]


def test_a_state_machine_that_cannot_be_asked_leaves_what_objects_tell(planted: Buckets) -> None:
    snapshot = read(planted, FakeStates(error=client_error("AccessDenied", "ListExecutions")), RUN)
    assert statuses(snapshot.run)[0] == "done"
    (note,) = snapshot.notes
    assert note.startswith("Step Functions cannot be asked")
