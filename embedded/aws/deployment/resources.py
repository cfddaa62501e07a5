"""One resource of a stack, from the moment that CloudFormation wants it until it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.config import Config

from embedded.aws.account import OPERATOR, Credentials, client
from embedded.aws.deployment.parameters import fit
from embedded.aws.host import Host

_ONE_TRY = Config(retries={"total_max_attempts": 1})
"""What fails here fails again; and a second CreateStack would find the first one's stack."""


class Api:
    """The services of the embedded AWS, called by the deployment itself."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """The operator's boto3 client of a service."""
        if service not in self._clients:
            self._clients[service] = client(service, self._host.endpoint, OPERATOR, _ONE_TRY)
        return self._clients[service]

    def client_of(self, role: str, service: str) -> Any:
        """A client with the rights of a Lambda's role, by its ARN."""
        credentials: Credentials = self._host.credentials(role, "cloudformation", "lambda.amazonaws.com")
        return client(service, self._host.endpoint, credentials, _ONE_TRY)

    def call(self, service: str, method: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        """Call a method with CloudFormation's properties for parameters; UnknownProperty names one that it lacks."""
        called = self.client(service)
        operation = called.meta.service_model.operation_model(called.meta.method_to_api_mapping[method])
        answer: dict[str, Any] = getattr(called, method)(**fit(properties, operation.input_shape))
        return answer


class Properties(dict[str, Any]):
    """A resource's properties, which know which of them nobody has looked at."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        super().__init__(properties)
        self.unread = set(properties)

    def __getitem__(self, name: str) -> Any:
        self.unread.discard(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """As of a dict."""
        self.unread.discard(name)
        return super().get(name, default)

    def __iter__(self) -> Iterator[str]:
        self.unread.clear()  # who goes through all of them, as `**properties` does, has them all
        return super().__iter__()

    def items(self) -> Any:
        """As of a dict."""
        self.unread.clear()
        return super().items()

    def without(self, *names: str) -> dict[str, Any]:
        """All but these, which the caller deals with; those that it does not stay unread."""
        self.unread &= set(names)
        return {name: value for name, value in super().items() if name not in names}


@dataclass(frozen=True)
class Wanted:
    """What CloudFormation wants. name: what it calls the resource where the template does not.

    by_moto: creates it as moto's own CloudFormation does, and returns moto's object.
    """

    kind: str
    logical_id: str
    name: str
    properties: Properties
    api: Api
    by_moto: Callable[[], Any]

    def named(self, name_property: str) -> str:
        """The name that the template gives in this property, or else CloudFormation's."""
        return str(self.properties.get(name_property) or self.name)


@dataclass
class Made:
    """What a stack has to know of a resource that moto's CloudFormation did not create itself.

    attributes: what Fn::GetAtt finds; physical_resource_id: what Ref does.
    """

    physical_resource_id: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    logical_resource_id: str = ""
    cf_resource_type: str = ""

    def get_cfn_attribute(self, name: str) -> str:
        """The attribute; KeyError when the resource's rule does not give it."""
        return self.attributes[name]

    @classmethod
    def has_cfn_attr(cls, name: str) -> bool:
        """Whether an output may ask for it; moto wants to know before the resource is there."""
        return True

    def is_created(self) -> bool:
        """Rules return when their resource is there."""
        return True


@dataclass(frozen=True)
class Rule:
    """One type that moto's CloudFormation does not create as AWS does. why: what becomes of it without the rule."""

    name: str
    kind: str
    why: str
    create: Callable[[Wanted], Any]


@dataclass(frozen=True)
class NotCreated:
    """One type that nothing is made of, since nothing would come of it. why: what it is for on AWS."""

    name: str
    kind: str
    why: str


@dataclass(frozen=True)
class Mended:
    """Something that moto's services themselves do otherwise than AWS's. why: what; mend: changes moto's classes."""

    name: str
    why: str
    mend: Callable[[], None]
