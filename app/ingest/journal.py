"""What a shard has fetched and not yet stored by day: a shard that is killed and tried again goes on from here."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import date
from typing import Any

from app import contract
from app.ingest.answers import DayAnswer
from app.ingest.bars import bars_of, to_table
from app.ingest.collect import Collected
from app.ingest.report import TickerReport
from app.ingest.ticker_bars import NO_BARS
from app.storage import Bucket
from app.tables import get_table, put_table

_REPORTS = b"stockflow.reports"


class Journal:
    """The journal of one shard of one run."""

    def __init__(self, market: Bucket, run_id: str, shard: str) -> None:
        self._market, self._run_id, self._shard = market, run_id, shard
        self._keys = market.keys(contract.journal_prefix(run_id, shard))

    def read(self) -> dict[str, Collected]:
        """Everything that was collected, by ticker; one that failed is to be tried again, so it is left out."""
        found: dict[str, Collected] = {}
        for key in self._keys:
            table = get_table(self._market, key)
            bars = bars_of(table)
            for line in json.loads(table.schema.metadata[_REPORTS]):
                report = TickerReport.from_json(line["report"])
                if report.status != "failed":
                    answers = {date.fromisoformat(day): DayAnswer(**answer) for day, answer in line["answers"].items()}
                    found[report.ticker] = Collected(bars.get(report.ticker, NO_BARS), answers, report)
        return found

    def add(self, collected: Iterable[Collected]) -> None:
        """Write one more entry."""
        entry = list(collected)
        lines = [_line(one) for one in entry]
        table = to_table({one.report.ticker: one.bars for one in entry})
        key = contract.journal_key(self._run_id, self._shard, len(self._keys))
        put_table(self._market, key, table.replace_schema_metadata({_REPORTS: json.dumps(lines)}))
        self._keys.append(key)

    def forget(self) -> None:
        """Delete it: what it holds is stored elsewhere now."""
        while self._keys:
            self._market.delete(self._keys.pop())


def _line(one: Collected) -> dict[str, Any]:
    answers = {day.isoformat(): asdict(answer) for day, answer in one.answers.items()}
    return {"report": one.report.to_json(), "answers": answers}
