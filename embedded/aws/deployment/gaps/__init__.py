"""Where moto's CloudFormation falls short of AWS's, and what is done about it: one rule for each type.

A rule creates its type through the service's own API, or lets moto create it and adds what moto lost. Each has a test
that shows what plain moto makes of the type, and that ends when moto does as AWS.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from embedded.aws.deployment.gaps import batch, compute, custom, functions, identity, messages, network, storage
from embedded.aws.deployment.resources import Mended, NotCreated, Rule

_ALL: Final[tuple[Rule | NotCreated | Mended, ...]] = (
    *storage.RULES,
    *batch.RULES,
    *functions.RULES,
    *identity.RULES,
    *messages.RULES,
    *compute.RULES,
    *network.RULES,
    *custom.RULES,
    NotCreated("cdk-metadata", "AWS::CDK::Metadata", "tells AWS which constructs are used"),
)
RULES: Final = {rule.kind: rule for rule in _ALL if not isinstance(rule, Mended)}
"""By the type that they are for."""
MENDED: Final = tuple(rule for rule in _ALL if isinstance(rule, Mended))


@cache
def mend() -> None:
    """Mend moto's services in this process, once."""
    for rule in MENDED:
        rule.mend()
