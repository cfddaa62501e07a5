"""Settings: their sources, who wins, and what a wrong one is told."""

from __future__ import annotations

from datetime import date

import pytest

from app import contract
from app.errors import SettingsError
from app.settings import Settings, changed, describe, load, place_from_environ

PLACE = {
    contract.ENV_MARKET_BUCKET: "market",
    contract.ENV_MODEL_BUCKET: "models",
    contract.ENV_PREDICTIONS_BUCKET: "predictions",
    contract.ENV_RUN_ID: "run-1",
}


def from_json(text: str, *flags: str) -> Settings:
    return load({contract.ENV_SETTINGS: text}, flags)


def test_without_a_source_the_defaults_hold() -> None:
    assert load({}) == Settings()
    assert (load({}).dataset.window_min, load({}).dataset.horizons_min) == (60, (5,))


def test_the_environment_overrides_the_defaults_it_names_and_no_others() -> None:
    settings = from_json('{"training": {"epochs": 3}, "dataset": {"exclude_days": ["2026-03-16"]}}')
    assert settings.training.epochs == 3
    assert settings.dataset.exclude_days == (date(2026, 3, 16),)
    assert settings.training.batch == Settings().training.batch
    assert settings.serving == Settings().serving


def test_a_flag_wins_over_the_environment_and_the_last_flag_over_the_first() -> None:
    settings = from_json('{"training": {"epochs": 3, "ranks": 4}}', "training.epochs=5", "training.epochs=6")
    assert (settings.training.epochs, settings.training.ranks) == (6, 4)


def test_a_flag_may_be_text_or_json() -> None:
    settings = load({}, ["ingest.on_delisted=skip", 'dataset.exclude_days=["2026-03-16"]', "training.warmup_epochs=0"])
    assert load({}, ["dataset.horizons_min=[1,2,5,10]"]).dataset.horizons_min == (1, 2, 5, 10)
    features = load({}, ['training.features=["session_minute","log_return"]']).training.features
    assert features == ("session_minute", "log_return")
    assert settings.ingest.on_delisted == "skip"
    assert settings.dataset.exclude_days == (date(2026, 3, 16),)
    assert settings.training.warmup_epochs == 0


def test_changed_settings_keep_what_was_set_before() -> None:
    before = load({}, ['dataset.exclude_days=["2026-03-16"]', "training.epochs=9"])
    after = changed(before, "serving.speed=60")
    assert after.serving.speed == 60
    assert (after.dataset, after.training) == (before.dataset, before.training)
    assert before.serving.speed == Settings().serving.speed


def test_settings_survive_the_json_in_which_they_travel() -> None:
    settings = load({}, ['dataset.exclude_days=["2026-03-16"]', "training.learning_rate=0.0003"])
    assert from_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("train.epochs=1", "unknown setting train: allowed are ingest, dataset, training, gate, serving"),
        ("serving.pace=1", "unknown setting serving.pace: allowed are serving.source, serving.kinesis_stream,"),
        ("training.epochs=many", "setting training.epochs='many': input should be a valid integer"),
        ('training.epochs="3"', "setting training.epochs='3': input should be a valid integer"),
        ("dataset.exclude_days=[20260316]", "setting dataset.exclude_days.0=20260316: input should be a valid date"),
        ("ingest.request_days=8", "setting ingest.request_days=8: input should be less than or equal to 7"),
        ("ingest.on_delisted=ignore", "setting ingest.on_delisted='ignore': input should be 'fail' or 'skip'"),
        ("training.timeout_s=Infinity", "setting training.timeout_s=inf: input should be a finite number"),
        ("serving.source=kinesis", "serving.source=kinesis needs the name of a stream in serving.kinesis_stream"),
        ("serving.feed=socket", "serving.feed=socket needs a host:port in serving.socket_address"),
        ("serving.socket_address=host", "setting serving.socket_address='host': string should match pattern"),
        ("serving.partitions=3", "serving.buckets must be at least serving.partitions"),
        ("dataset.horizons_min=[]", "setting dataset.horizons_min=[]: tuple should have at least 1 item"),
        ("dataset.horizons_min=5", "setting dataset.horizons_min=5: input should be a valid array"),
        ("dataset.horizons_min=[61]", "setting dataset.horizons_min.0=61: input should be less than or equal to 60"),
        ("dataset.horizons_min=[5,2]", "dataset.horizons_min must ascend, each horizon once"),
        ('training.features=["close"]', "setting training.features.0='close': input should be 'log_return', "),
        ('training.features=["log_return","log_return"]', "training.features must name each feature once"),
        ("training.resolution_min=7", "training.resolution_min must divide dataset.window_min"),
        ("training.epochs", "--set 'training.epochs' is not of the form group.name=value"),
        ("epochs=3", "--set 'epochs=3' is not of the form group.name=value"),
    ],
)
def test_a_wrong_flag_is_told_its_name_and_what_is_allowed(flag: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({}, [flag])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("{", [], "STOCKFLOW_SETTINGS is not JSON"),
        ("[]", [], "STOCKFLOW_SETTINGS must be a JSON object of groups, not list"),
        ('{"training": 3}', [], "setting training=3: input should be an object"),
        ('{"training": 3}', ["training.epochs=1"], "STOCKFLOW_SETTINGS: group 'training' must be a JSON object"),
    ],
)
def test_a_malformed_environment_is_told_so(text: str, flags: list[str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_json(text, *flags)
    assert str(caught.value).startswith(message)


def test_every_setting_is_described_with_its_default() -> None:
    lines = describe()
    assert "dataset.horizons_min=[5]  minutes the model looks ahead, ascending; one model for all" in lines
    names = {f"{group}.{name}" for group, inner in Settings() for name in type(inner).model_fields}
    assert {line.partition("=")[0] for line in lines} == names
    assert not [line for line in lines if line.endswith(("  ", "None"))]


def test_the_place_comes_from_the_environment() -> None:
    place = place_from_environ(PLACE)
    assert (place.market_bucket, place.model_bucket, place.predictions_bucket, place.run_id) == tuple(PLACE.values())


def test_the_dataset_is_the_run_s_own_unless_another_run_is_named() -> None:
    assert place_from_environ(PLACE).dataset_run == "run-1"
    assert place_from_environ({**PLACE, contract.ENV_DATASET_RUN: ""}).dataset_run == "run-1"
    other = place_from_environ({**PLACE, contract.ENV_DATASET_RUN: "run-0"})
    assert (other.run_id, other.dataset_run) == ("run-1", "run-0")
    with pytest.raises(SettingsError, match=r"STOCKFLOW_DATASET_RUN='a/b': use up to 64 letters"):
        place_from_environ({**PLACE, contract.ENV_DATASET_RUN: "a/b"})


def test_a_missing_or_empty_place_is_named() -> None:
    with pytest.raises(SettingsError, match="set STOCKFLOW_MODEL_BUCKET, STOCKFLOW_RUN_ID "):
        place_from_environ({**PLACE, contract.ENV_MODEL_BUCKET: "", contract.ENV_RUN_ID: ""})


@pytest.mark.parametrize("run_id", ["a/b", ".hidden", "x" * 65, "späť"])
def test_a_run_id_that_would_break_keys_is_refused(run_id: str) -> None:
    with pytest.raises(SettingsError, match=r"STOCKFLOW_RUN_ID=.*use up to 64 letters"):
        place_from_environ({**PLACE, contract.ENV_RUN_ID: run_id})
