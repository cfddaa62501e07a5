"""Which settings a run on this machine has: those that were set, and the deployment's."""

from __future__ import annotations

from app.contract import ENV_SETTINGS
from app.settings import Settings, load
from embedded.run import execution_input
from embedded.synthesis import machine_settings


def test_an_execution_is_asked_for_what_was_set_also_where_it_is_the_phases_default() -> None:
    asked = load({ENV_SETTINGS: '{"gate": {"min_skill": -1}}'}, ["ingest.shards=1", "training.ranks=1"])
    assert execution_input(asked, "r") == {
        "run_id": "r",
        "settings": {"gate": {"min_skill": -1.0}, "ingest": {"shards": 1}},
        "training": {"instances": 1, "processes": 1},
    }
    assert execution_input(load({}), "r") == {"run_id": "r", "settings": {}}


def test_the_ingest_is_an_array_job_unless_something_else_is_asked_for() -> None:
    assert machine_settings().ingest.shards == 2
    assert machine_settings(load({}, ["ingest.days=7"])).ingest.model_dump(include={"shards", "days"}) == {
        "shards": 2, "days": 7
    }  # fmt: skip
    assert machine_settings(load({}, ["ingest.shards=1"])) == Settings()
    assert machine_settings(load({}, ['dataset.exclude_days=["2026-03-16"]'])).dataset.exclude_days
