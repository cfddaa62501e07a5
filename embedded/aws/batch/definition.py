"""Job definitions out of CloudFormation templates, whole: moto loses their timeout and what they run on."""

from __future__ import annotations

from typing import Any

from moto.batch.models import batch_backends

_MAPS = frozenset({"Options", "Parameters", "Tags", "DriverOpts", "Labels"})
"""Properties whose keys are the user's."""


def create_from_template(
    _: type, /, resource_name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **__: Any
) -> Any:
    """In place of moto's JobDefinition.create_from_cloudformation_json."""
    properties = cloudformation_json["Properties"]
    api = api_names(properties)
    return batch_backends[account_id][region_name].register_job_definition(
        def_name=resource_name,
        parameters=api.get("parameters", {}),
        _type=api.get("type", "container"),
        tags=api.get("tags", {}),
        retry_strategy=api.get("retryStrategy", {}),
        container_properties=api.get("containerProperties"),
        node_properties=api.get("nodeProperties"),
        eks_properties=api.get("eksProperties"),
        timeout=api.get("timeout", {}),
        platform_capabilities=api.get("platformCapabilities", []),
        propagate_tags=str(api.get("propagateTags", False)).lower() == "true",
    )


def api_names(value: Any) -> Any:
    """A template's properties with the names that the API has for them: their first letter is small."""
    if isinstance(value, dict):
        return {
            key[:1].lower() + key[1:]: dict(inner) if key in _MAPS else api_names(inner) for key, inner in value.items()
        }
    return [api_names(inner) for inner in value] if isinstance(value, list) else value
