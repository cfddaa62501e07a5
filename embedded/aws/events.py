"""EventBridge: rules whose target is a Lambda call it, which moto's rules do not."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from moto.events.models import Rule, events_backends
from moto.events.utils import EventTemplateParser

from embedded.aws import functions
from embedded.aws.account import ACCOUNT, REGION
from embedded.aws.host import Host

_LOG = logging.getLogger(__name__)


def emit(source: str, detail_type: str, resources: Sequence[str], detail: Mapping[str, Any]) -> None:
    """Put a service's own event on the default bus."""
    entry = {"Source": source, "DetailType": detail_type, "Resources": list(resources), "Detail": json.dumps(detail)}
    events_backends[ACCOUNT][REGION].put_events([entry])


def _delivered(target: Mapping[str, Any], event: Mapping[str, Any]) -> Any:
    """What a target gets of an event."""
    at = datetime.fromtimestamp(float(event["time"]), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    whole = {**event, "time": at}
    if "Input" in target:
        return json.loads(target["Input"])
    if "InputTransformer" in target:
        transformer = target["InputTransformer"]
        return EventTemplateParser.parse(transformer["InputTemplate"], transformer.get("InputPathsMap", {}), whole)
    whole.pop("ingestion-time", None)
    found: Any = whole
    for name in target.get("InputPath", "$").split(".")[1:]:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def install(host: Host) -> None:
    """Let the rules of this process call Lambdas, which run on `host`; moto's own targets stay as they are."""
    original = Rule.send_to_targets

    def send_to_targets(self: Any, original_event: Any, transform_input: bool = True) -> None:
        lambdas = [target for target in self.targets if ":lambda:" in target["Arn"]]
        if lambdas and self.event_pattern.matches_event(original_event):
            for target in lambdas:
                try:
                    event = _delivered(target, original_event)
                    functions.invoke_later(host, target["Arn"], event, caller="events.amazonaws.com", source=self.arn)
                except (functions.NotPermitted, ValueError):
                    _LOG.exception("rule %s", self.name)
        others = copy.copy(self)  # moto knows no Lambda among targets
        others.targets = [target for target in self.targets if target not in lambdas]
        original(others, original_event, transform_input)

    Rule.send_to_targets = send_to_targets
