"""What a shard has fetched and not yet stored by day: a shard that is killed and tried again goes on from here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date

from app import contract
from app.ingest.answers import DayAnswer
from app.ingest.bars import bars_of, to_table
from app.ingest.ticker_bars import NO_BARS, TickerBars
from app.storage import Bucket
from app.tables import get_table, put_table

_ANSWERS = b"stockflow.answers"


@dataclass(frozen=True)
class Fetched:
    """What was fetched of one ticker: bars, and the answers that they belong to."""

    bars: TickerBars
    answers: Mapping[date, DayAnswer]


class Journal:
    """The journal of one shard of one run."""

    def __init__(self, market: Bucket, run_id: str, shard: str) -> None:
        self._market, self._run_id, self._shard = market, run_id, shard
        self._keys = market.keys(contract.journal_prefix(run_id, shard))

    def read(self) -> dict[str, Fetched]:
        """Everything that was fetched, by ticker."""
        found: dict[str, Fetched] = {}
        for key in self._keys:
            table = get_table(self._market, key)
            bars = bars_of(table)
            for ticker, answers in json.loads(table.schema.metadata[_ANSWERS]).items():
                by_day = {date.fromisoformat(day): DayAnswer(**answer) for day, answer in answers.items()}
                found[ticker] = Fetched(bars.get(ticker, NO_BARS), by_day)
        return found

    def add(self, fetched: Mapping[str, Fetched]) -> None:
        """Write one more entry."""
        answers = {
            ticker: {day.isoformat(): asdict(answer) for day, answer in one.answers.items()}
            for ticker, one in fetched.items()
        }
        table = to_table({ticker: one.bars for ticker, one in fetched.items()})
        key = contract.journal_key(self._run_id, self._shard, len(self._keys))
        put_table(self._market, key, table.replace_schema_metadata({_ANSWERS: json.dumps(answers)}))
        self._keys.append(key)

    def forget(self) -> None:
        """Delete it: what it holds is stored elsewhere now."""
        while self._keys:
            self._market.delete(self._keys.pop())
