"""CloudFormation's functions, done without moto."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any


class Substitution(ABC):
    """Puts physical values in the place of a template's functions. exports: what other stacks give, by name."""

    def __init__(self, exports: Mapping[str, Any]) -> None:
        self._exports = exports

    @abstractmethod
    def reference(self, name: str) -> str:
        """What Ref gives for a resource or a pseudo parameter."""

    @abstractmethod
    def attribute(self, name: str, attribute: str) -> str:
        """What Fn::GetAtt gives."""

    def value(self, written: Any) -> Any:
        """What a value of the template is; KeyError for what is not known here."""
        if isinstance(written, list):
            return [self.value(item) for item in written]
        if not isinstance(written, dict):
            return written
        if len(written) == 1 and (name := next(iter(written))).startswith(("Fn::", "Ref")):
            return self._call(name, written[name])
        return {name: self.value(item) for name, item in written.items()}

    def _call(self, function: str, given: Any) -> Any:
        match function:
            case "Ref":
                return self.reference(given)
            case "Fn::GetAtt":
                return self.attribute(*given)
            case "Fn::ImportValue":
                return self._exports[self.value(given)]
            case "Fn::Join":
                return given[0].join(str(self.value(part)) for part in given[1])
            case "Fn::Sub":
                return re.sub(r"\$\{!", "${", re.sub(r"\$\{([^!}]+)\}", self._put_in, given))
            case _:
                raise KeyError(function)

    def _put_in(self, found: re.Match[str]) -> str:
        name, _, attribute = found[1].partition(".")
        return self.attribute(name, attribute) if attribute else self.reference(name)
