"""The price table, ``infra/prices.json``: dated, of one region, each price with its unit and the page it is from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.errors import SettingsError
from infra.root import ROOT

FILE = "infra/prices.json"


@dataclass(frozen=True)
class Price:
    """What one unit costs. name: group of the table; unit: for example hour or GB-month; page: its source."""

    name: str
    usd: float
    unit: str
    page: str

    def reduced(self, share: float) -> Price:
        """The price less a share of it."""
        return replace(self, usd=self.usd * (1 - share))


@dataclass(frozen=True)
class Prices:
    """The whole table. as_of: month; source: where it was taken from and how."""

    as_of: str
    region: str
    source: str
    groups: Mapping[str, Mapping[str, Any]]

    def find(self, name: str, instance_type: str = "") -> Price:
        """The price of a group, for one instance type where the group has many.

        Raises SettingsError, which says where to add it, for a type without a price: none is guessed.
        """
        group = self.groups[name]
        usd = group["usd"]
        if isinstance(usd, dict):
            if instance_type not in usd:
                raise SettingsError(
                    f"no {name} price for {instance_type}: add its USD an hour in {self.region} from {group['page']}"
                    f" to prices.{name}.usd of {FILE}, or choose one of {', '.join(usd)}"
                )
            usd = usd[instance_type]
        return Price(name, float(usd), group["unit"], group["page"])


def read_prices() -> Prices:
    """The table as it lies in the checkout."""
    table = json.loads((ROOT / FILE).read_text(encoding="utf-8"))
    return Prices(table["as_of"], table["region"], table["source"], table["prices"])
