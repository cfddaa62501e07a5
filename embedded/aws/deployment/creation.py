"""How CloudFormation creates one resource: by the rule for its type where there is one, else as moto does."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from botocore.exceptions import ClientError
from moto.cloudformation import parsing
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.utils import random_suffix
from moto.moto_api._internal import mock_random

from app.errors import StockflowError
from embedded.aws.deployment import gaps
from embedded.aws.deployment.resources import Api, Made, NotCreated, Properties, Wanted
from embedded.aws.host import Host

_LONGEST: Final[Mapping[str, int]] = {
    "AWS::S3::Bucket": 63,
    "AWS::IAM::Role": 64,
    "AWS::Lambda::Function": 64,
    "AWS::Events::Rule": 64,
    "AWS::Scheduler::Schedule": 64,
    "AWS::SQS::Queue": 80,
    "AWS::StepFunctions::StateMachine": 80,
}
"""Characters that a service allows a name, where that is less than two ids and a suffix may come to."""
_MOTOS: Final = dict(parsing.get_model_map())
"""Types that moto can create, and its classes for them."""
_OPAQUE: Final = frozenset({"AWS::CloudFormation::Stack"})
"""Types that moto takes but whose content nobody here would look into."""


class Creation:
    """In the place of moto's own function. adapted, not_created, ignored: what happened so far.

    ignored: properties by type that neither a rule nor moto has looked at.
    """

    def __init__(self, host: Host) -> None:
        self.adapted = {rule.name: None for rule in gaps.MENDED}
        self.not_created: Counter[str] = Counter()
        self.ignored: defaultdict[str, set[str]] = defaultdict(set)
        self._api = Api(host)

    def install(self) -> None:
        """From now on this process's CloudFormation creates resources so."""
        parsing.parse_and_create_resource = self.create
        parsing.get_model_map().update(dict.fromkeys(gaps.RULES, Made))
        gaps.mend()

    def unknown(self, template: Mapping[str, Any]) -> Iterator[str]:
        """Types in a template that neither a rule nor moto can create."""
        for kind in sorted({resource["Type"] for resource in template["Resources"].values()}):
            if not _known(kind):
                yield kind

    def create(
        self, logical_id: str, resource: dict[str, Any], stack: Any, account_id: str, region_name: str
    ) -> Any | None:
        """Create one resource, and before it those that it names; moto's function has the same arguments.

        stack: moto's map of the resources by logical id, which creates what is not there when it is looked up.
        """
        if "Condition" in resource and not stack.lazy_condition_map[resource["Condition"]]:
            return None
        kind = resource["Type"]
        try:
            made = self._create(kind, logical_id, resource, stack, account_id, region_name)
        except ValidationError:
            raise  # of a resource that this one names: it says which
        except Exception as exc:
            raise ValidationError(message=f"{logical_id} ({kind}): {_reason(exc)}") from exc
        made.logical_resource_id, made.cf_resource_type = logical_id, kind
        return made

    def _create(
        self, kind: str, logical_id: str, resource: dict[str, Any], stack: Any, account_id: str, region_name: str
    ) -> Any:
        if not _known(kind):
            raise LookupError("moto cannot create this type and no rule does")
        for needed in _listed(resource.get("DependsOn", [])):
            stack[needed]  # moto itself forgets these of a resource that another one names
        resolved = parsing.clean_json({**resource, "Properties": resource.get("Properties", {})}, stack)
        properties = resolved["Properties"] = Properties(resolved["Properties"])
        # Of names and ids only: with a seed of its own a resource keeps them whatever else is in the template.
        mock_random.seed(f"{stack['AWS::StackName']}/{logical_id}")
        name = physical_name(kind, stack["AWS::StackName"], logical_id)
        rule = gaps.RULES.get(kind)
        if isinstance(rule, NotCreated):
            self.not_created[kind] += 1
            return Made(logical_id)

        def by_moto() -> Any:
            model = _MOTOS[kind]
            own_name = properties.get(model.cloudformation_name_type() or "") or name
            about = {"LogicalId": logical_id, "StackId": stack.stack_id, "ResourceType": kind}
            return model.create_from_cloudformation_json(own_name, resolved, account_id, region_name, **about)

        if rule is None:
            made = by_moto()
        else:
            self.adapted[rule.name] = None
            made = rule.create(Wanted(kind, logical_id, name, properties, self._api, by_moto))
        self.ignored[kind] |= properties.unread
        return made


def _known(kind: str) -> bool:
    return kind in gaps.RULES or (kind in _MOTOS and kind not in _OPAQUE)


def physical_name(kind: str, stack: str, logical_id: str) -> str:
    """What CloudFormation calls a resource that the template gives no name, cut to what the service allows."""
    suffix = random_suffix()
    name = f"{stack}-{logical_id}"[: _LONGEST.get(kind, 128) - len(suffix) - 1].rstrip("-") + f"-{suffix}"
    return name.lower() if kind == "AWS::S3::Bucket" else name


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _reason(exc: Exception) -> str:
    if isinstance(exc, ClientError):
        return f"{exc.operation_name}: {exc.response['Error']['Message']}"
    said = " ".join(str(exc).split())
    return said if isinstance(exc, StockflowError) else f"{type(exc).__name__}: {said}"
