"""What a request asks IAM for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Check(NamedTuple):
    """An action on a resource, and context keys that belong to this action. resource "*": it knows no resources."""

    action: str
    resource: str
    values: Mapping[str, str | Sequence[str]]
