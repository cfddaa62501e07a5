"""What the state machine is started with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app import contract
from app.settings import Settings, asked_in, layered, load


def settings_input(settings: Settings) -> dict[str, Any]:
    """Of the settings those that were set, as an execution takes them: the deployment has the others."""
    asked = settings.model_dump(mode="json", exclude_unset=True)
    ranks = asked.get("training", {}).pop("ranks", None)
    return {
        "settings": {group: values for group, values in asked.items() if values},
        **({"training": {"instances": 1, "processes": ranks}} if ranks else {}),
    }


def with_settings(text: str, environ: Mapping[str, str], flags: Sequence[str]) -> str:
    """A JSON input with settings put in: those of `environ` under its own, those of `flags` over them.

    What is no input is left for the state machine to refuse, as is one without anything to put in.
    """
    below = asked_in(environ)
    try:
        asked = json.loads(text)
    except ValueError:
        return text
    own = asked.get("settings", {}) if isinstance(asked, dict) else None
    if not (below or flags) or not isinstance(own, dict):
        return text
    put_in = settings_input(load({contract.ENV_SETTINGS: json.dumps(layered(below, own))}, flags))
    ranks = put_in.pop("training", {})
    training = {"training": {**ranks, **asked.get("training", {})}} if ranks else {}
    return json.dumps({**asked, **put_in, **training})
