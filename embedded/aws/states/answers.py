"""Answers of AWS's APIs as Step Functions writes them."""

from __future__ import annotations

from typing import Any


def ask(client: Any, method: str, **parameters: Any) -> dict[str, Any]:
    """Call a boto3 client's method; the names in its answer begin with a capital."""
    operation = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method])
    answer: dict[str, Any] = _capitalised(getattr(client, method)(**parameters), operation.output_shape)
    return answer


def _capitalised(value: Any, shape: Any) -> Any:
    """The names of structures with a capital; the keys of maps, which users have chosen, as they are."""
    match shape and shape.type_name:
        case None:
            return {}
        case "structure":
            known = shape.members.keys() & value.keys()  # not the metadata of the response
            return {name[:1].upper() + name[1:]: _capitalised(value[name], shape.members[name]) for name in known}
        case "list":
            return [_capitalised(item, shape.member) for item in value]
        case "map":
            return {key: _capitalised(item, shape.value) for key, item in value.items()}
    return value
