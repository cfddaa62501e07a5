"""The JSON schema of the settings, judged without pydantic as pydantic judges."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from app import contract
from app.errors import SettingsError
from app.settings import Settings, load
from app.workflow.schema import KNOWN_KEYWORDS, check, merged

SCHEMA = Settings.model_json_schema()
DEFAULTS = Settings().model_dump(mode="json")
FIELDS = [(group, name) for group, values in DEFAULTS.items() for name in values]


def schema_of(group: str, name: str) -> dict[str, Any]:
    section = SCHEMA["properties"][group]["$ref"].rpartition("/")[2]
    found: dict[str, Any] = SCHEMA["$defs"][section]["properties"][name]
    return found


def told(overrides: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        merged(DEFAULTS, overrides, SCHEMA)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def keywords(schema: Any) -> Iterator[str]:
    """Every keyword of a schema; names of properties and of definitions are none."""
    for keyword, value in schema.items():
        yield keyword
        if keyword in {"properties", "$defs"}:
            yield from (inner for part in value.values() for inner in keywords(part))
        elif keyword == "items":
            yield from keywords(value)


def test_every_keyword_of_the_settings_schema_is_known() -> None:
    assert set(keywords(SCHEMA)) <= KNOWN_KEYWORDS


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "multipleOf": 2},
        {"type": "string", "format": "time"},
        {"type": "object", "properties": {}, "additionalProperties": True},
    ],
)
def test_what_it_does_not_know_is_a_bug_and_never_a_yes(schema: dict[str, Any]) -> None:
    with pytest.raises(NotImplementedError, match="JSON schema"):
        check({"integer": 2, "string": "12:00", "object": {}}[schema["type"]], schema)


# --- one judgement ------------------------------------------------------------------------------

WRONG: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, "", "3", "skip", "nan", 0, -1, 2.5, 3.0, 10**400, 1e300, [], [3], {}, {"a": 1}]
)
DAYS: st.SearchStrategy[Any] = st.lists(
    st.sampled_from(
        ["2026-03-16", "2024-02-29", "2026-02-29", "20260316", "2026-03-16\n", "2026-W12-1", "0000-01-01", 5]
    ),
    max_size=3,
)


def lists(items: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Lists of days, of names or of numbers, ascending or not, some twice."""
    if items["type"] == "string":
        return st.lists(st.sampled_from([*items["enum"], "close"]), max_size=4) if "enum" in items else DAYS
    return st.lists(st.integers(0, 61), max_size=3) | st.lists(st.sampled_from([1, 2.0, 5, 60, 61, "5"]), max_size=3)


def values(group: str, name: str) -> st.SearchStrategy[Any]:
    """Values at and about the bounds of a setting, and values of other types."""
    schema = schema_of(group, name)
    if schema["type"] == "array":
        return lists(schema["items"]) | WRONG
    if schema["type"] == "boolean":
        return st.booleans() | WRONG
    if "enum" in schema:
        return st.sampled_from(schema["enum"]) | WRONG
    if "pattern" in schema:
        return st.sampled_from(["ticks", "ticks\n", "a b", "host:1", "host:1\n", "[::1]:123456", "x" * 129]) | WRONG
    bounds = [schema[k] for k in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum") if k in schema]
    edges = [bound + step for bound in bounds for step in (-1, 0, 1)]
    whole: st.SearchStrategy[Any] = st.sampled_from([int(edge) for edge in edges]) | st.integers(0, 50)
    if schema["type"] == "integer":
        return whole | WRONG
    return whole | st.floats(0, 1) | st.floats(allow_nan=False, allow_infinity=False) | WRONG


@st.composite
def overrides(draw: st.DrawFn) -> dict[str, Any]:
    """A few settings, now and then a wrong name or group."""
    asked: dict[str, Any] = {}
    for group, name in draw(st.lists(st.sampled_from(FIELDS), max_size=3, unique=True)):
        asked.setdefault(group, {})[name] = draw(values(group, name))
    if draw(st.integers(0, 9)) == 0:
        asked[draw(st.sampled_from(["", "train", "serving", "Gate"]))] = draw(WRONG)
    return asked


@given(asked=overrides())
@examples(max_examples=600)
def test_it_takes_and_refuses_what_the_command_line_does(asked: dict[str, Any]) -> None:
    try:
        expected = load({contract.ENV_SETTINGS: json.dumps(asked)})
    except SettingsError:
        told(asked)
    else:
        assert Settings.model_validate_json(json.dumps(merged(DEFAULTS, asked, SCHEMA))) == expected


# --- what is told -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"train": {}}, "unknown setting train: allowed are ingest, dataset, training, gate, serving"),
        ({"gate": {"skill": 1}}, "unknown setting gate.skill: allowed are gate.min_skill"),
        ({"training": 3}, "setting training=3: must be an object"),
        ({"training": {"epochs": 0}}, "setting training.epochs=0: must be at least 1"),
        ({"training": {"epochs": "3"}}, "setting training.epochs='3': must be an integer"),
        ({"training": {"epochs": True}}, "setting training.epochs=True: must be an integer"),
        ({"training": {"dropout": 1}}, "setting training.dropout=1: must be less than 1"),
        ({"serving": {"speed": 2e6}}, "setting serving.speed=2000000.0: must be at most 1000000"),
        ({"serving": {"speed": 0}}, "setting serving.speed=0: must be more than 0"),
        ({"ingest": {"on_delisted": "no"}}, "setting ingest.on_delisted='no': must be one of 'fail', 'skip'"),
        ({"dataset": {"exclude_days": ["3/16"]}}, "setting dataset.exclude_days.0='3/16': must be a day such as"),
        ({"dataset": {"exclude_days": "2026-03-16"}}, "setting dataset.exclude_days='2026-03-16': must be a list"),
        ({"dataset": {"horizons_min": []}}, "setting dataset.horizons_min=[]: must name at least 1"),
        ({"dataset": {"horizons_min": [0, 5]}}, "setting dataset.horizons_min.0=0: must be at least 1"),
        ({"dataset": {"horizons_min": [5, 1]}}, "dataset.horizons_min must ascend, each horizon once"),
        ({"dataset": {"horizons_min": [5, 5]}}, "dataset.horizons_min must ascend, each horizon once"),
        ({"training": {"features": ["close"]}}, "setting training.features.0='close': must be one of 'log_return', "),
        (
            {"training": {"features": ["log_return", "log_return"]}},
            "training.features must name each feature once",
        ),
        ({"training": {"resolution_min": 7}}, "training.resolution_min must divide dataset.window_min"),
        (
            {"training": {"kernel": "native", "precision": "mixed_float16"}},
            "training.kernel=native computes in float32",
        ),
        ({"serving": {"partitions": 3}}, "serving.buckets must be at least serving.partitions"),
    ],
)
def test_a_wrong_setting_is_told_its_name_and_what_is_allowed(asked: dict[str, Any], message: str) -> None:
    assert told(asked).startswith(message)


def test_a_long_value_is_cut_and_a_long_list_of_allowed_ones_named_by_likeness() -> None:
    with pytest.raises(SettingsError) as caught:
        check("x" * 1000, {"enum": [f"type-{i}" for i in range(20)] + ["xxx"]})
    assert len(str(caught.value)) < 300
    assert ": must be one of 'xxx', " in str(caught.value)
    assert str(caught.value).endswith(" or 13 others")


def test_a_pattern_does_not_forgive_a_newline() -> None:
    check("abc", {"type": "string", "pattern": "^[a-c]+$"})
    for wrong in ("abcd", "abc\n"):
        with pytest.raises(SettingsError, match="must match"):
            check(wrong, {"type": "string", "pattern": "^[a-c]+$"})


def test_defaults_stay_as_they_were() -> None:
    before = json.dumps(DEFAULTS)
    changed = merged(DEFAULTS, {"training": {"epochs": 9}, "dataset": {"exclude_days": ["2026-03-16"]}}, SCHEMA)
    assert changed["training"] == {**DEFAULTS["training"], "epochs": 9}
    assert changed["serving"] == DEFAULTS["serving"]
    assert json.dumps(DEFAULTS) == before
