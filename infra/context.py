"""The CDK's context as settings: ``cdk.json`` first, ``-c`` flags over it.

A group may be given as a JSON object or by dotted names: ``-c training.instances=2``,
``-c settings.training.epochs=8``. An unknown key or a wrong value is a SettingsError that names what is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from app.errors import SettingsError
from app.settings import explain, json_or_text
from infra.root import ROOT
from infra.settings import Deployment

_CDK_KEYS = ("acknowledged-issue-numbers", "cli-telemetry")
"""What `cdk acknowledge` and `cdk cli-telemetry` write into the context."""


def written_context() -> dict[str, Any]:
    """The context of cdk.json, which the CDK's command line hands over by itself."""
    context: dict[str, Any] = json.loads((ROOT / "cdk.json").read_text(encoding="utf-8"))["context"]
    return context


def load(context: Mapping[str, Any]) -> Deployment:
    """The deployment that a CDK context asks for; SettingsError names what is wrong and what is allowed.

    Keys of the CDK itself hold a colon, begin with @ or are _CDK_KEYS: they are none of ours.
    """
    asked: dict[str, Any] = {}
    groups = {key: value for key, value in context.items() if not _is_cdk_key(key)}
    for key in sorted(groups, key=lambda name: name.count(".")):  # a group's object first, its dotted names over it
        given = groups[key]
        _put(asked, key.split("."), json_or_text(given) if isinstance(given, str) else given)
    try:
        return Deployment.model_validate(asked)
    except ValidationError as exc:
        raise SettingsError(explain(exc, Deployment)) from exc


def _is_cdk_key(key: str) -> bool:
    return ":" in key or key.startswith("@") or key in _CDK_KEYS


def _put(asked: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        inner = asked.setdefault(part, {})
        if not isinstance(inner, dict):
            raise SettingsError(f"setting {'.'.join(path)}: {part} is given as {inner!r} too, which is no JSON object")
        asked = inner
    held = asked.get(path[-1])
    if isinstance(held, dict) and isinstance(value, dict):
        value = {**held, **value}
    asked[path[-1]] = value
