"""What a request says of itself, in the keys that conditions of policies ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


class Context:
    """Values by context key; keys are the same in capitals and in small letters.

    resource_tags: the tags of the resource that is asked for, looked up only when a policy wants to know.
    """

    __slots__ = ("_resource_tags", "_tags", "_values")

    def __init__(
        self,
        values: Mapping[str, str | Sequence[str]],
        resource_tags: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._values = {
            key.lower(): (value,) if isinstance(value, str) else tuple(value) for key, value in values.items()
        }
        self._resource_tags = resource_tags
        self._tags: dict[str, str] | None = None

    def get(self, key: str) -> tuple[str, ...]:
        """The values of a key; none where the request does not have it."""
        key = key.lower()
        _, _, tag = key.partition(":resourcetag/")
        if not tag:
            return self._values.get(key, ())
        if self._tags is None:
            self._tags = {name.lower(): value for name, value in self._resource_tags().items()}
        return (self._tags[tag],) if tag in self._tags else ()
