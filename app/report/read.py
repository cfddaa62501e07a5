"""What the folder of a run and the folder of the benchmarks hold, as far as it is there."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from app import consumer, contract
from app.consumer.source import RUN_SUMMARY, RunFolder
from app.errors import SettingsError, StockflowError
from app.settings import Settings
from embedded.summary import COVERAGE

Json = Mapping[str, Any]

EXAMPLES: Final = 3
"""Tickers whose forecasts are shown."""
PLACES: Final = ("serving.socket_address",)
"""Settings that name a machine."""
_PATH = re.compile(r"(?<![\w/:.])(?:/[\w.@+~-]+)+/([\w.@+~-]+)")
_SHORTEST_HOST = 4
"""A shorter name of this machine may be a word."""


@dataclass(frozen=True)
class RunFiles:
    """A run's folder. What is missing reads as empty; StockflowError for what is no JSON."""

    folder: Path

    @cached_property
    def summary(self) -> Json:
        """`summary.json`."""
        return _json(self.folder / RUN_SUMMARY)

    @cached_property
    def coverage(self) -> Json:
        """`coverage.json`."""
        return _json(self.folder / COVERAGE)

    @cached_property
    def minutes(self) -> Mapping[str, int]:
        """Minutes of each planned session by its day."""
        return {one["day"]: int(one["minutes"]) for one in _json(self.folder / "plan.json").get("sessions", ())}

    @cached_property
    def metrics(self) -> Json:
        """Of the run's model."""
        return _json(self._model / contract.MODEL_METRICS) if self._model else {}

    @cached_property
    def decision(self) -> Json:
        """Of the gate, on the run's model."""
        return _json(self._model / contract.MODEL_DECISION) if self._model else {}

    @cached_property
    def card(self) -> str:
        """The model's card as Markdown; empty without one."""
        card = self._model / contract.MODEL_CARD if self._model else None
        return card.read_text(encoding="utf-8") if card and card.is_file() else ""

    @property
    def _model(self) -> Path | None:
        model_id = str(self.summary.get("model_id") or "")
        return self.folder / contract.model_prefix(model_id) if model_id else None

    def examples(self) -> dict[str, list[dict[str, Any]]]:
        """By ticker, the forecasts of the last session at the largest horizon, beside what happened; some tickers."""
        bucket = RunFolder(self.folder)
        days = consumer.sessions(bucket=bucket)
        if not days:
            return {}
        newest = consumer.latest(columns=["ticker", "horizon_min"], frame="arrow", bucket=bucket).to_pylist()
        names = sorted({str(row["ticker"]) for row in newest})[:EXAMPLES]
        if not names:
            return {}
        horizon = max(int(row["horizon_min"]) for row in newest)
        rows = consumer.outcomes(
            days[-1], days[-1], names, horizons_min=horizon, frame="arrow", bucket=bucket
        ).to_pylist()
        return {name: own for name in names if (own := [row for row in rows if row["ticker"] == name])}

    def accuracy(self) -> list[dict[str, Any]]:
        """How good the last session's forecasts were, by horizon."""
        bucket = RunFolder(self.folder)
        days = consumer.sessions(bucket=bucket)
        found = consumer.accuracy(days[-1], days[-1], frame="arrow", bucket=bucket).to_pylist() if days else []
        return list(found)


@dataclass(frozen=True)
class BenchFiles:
    """What `make bench-ingest`, `bench-training` and `bench-serving` left; what did not run reads as empty."""

    folder: Path

    @cached_property
    def ingest(self) -> Json:
        """Seconds of our ingest and of the other ways."""
        return _json(self.folder / "ingest.json")

    @cached_property
    def training(self) -> Json:
        """Sequences a second of each arm and batch."""
        return _json(self.folder / "training.json")

    @cached_property
    def serving(self) -> Json:
        """Seconds of a micro-batch by tickers."""
        return _json(self.folder / "serving.json")


def open_run(folder: Path) -> RunFiles:
    """The run in a folder, which may hold nothing yet; SettingsError when there is no such folder."""
    if not folder.is_dir():
        raise SettingsError(f"--from {folder}: there is no such folder; type `make run`, or name a run's folder")
    return RunFiles(folder)


def settings_rows(used: Json) -> list[tuple[str, str, str]]:
    """Name, value and default of each setting that a run used; without a default for those that are no more."""
    defaults = Settings().model_dump(mode="json")
    return [
        (
            f"{group}.{name}",
            "(not told)" if f"{group}.{name}" in PLACES and value else json.dumps(value),
            json.dumps(defaults[group][name]) if name in defaults.get(group, {}) else "",
        )
        for group, values in used.items()
        for name, value in values.items()
    ]


def without_places(text: str) -> str:
    """A text without the folders of its paths and without this machine's name: a report is for others too."""
    host = platform.node()
    shown = text.replace(host, "this machine") if len(host) >= _SHORTEST_HOST else text
    return _PATH.sub(r"\1", shown)


def median_of(spread: Json | None) -> float | None:
    """The median of a benchmark's rounds, where that arm ran."""
    return float(spread["median"]) if spread else None


def phases_of(summary: Json) -> Mapping[str, Json]:
    """Phases by name."""
    phases: Sequence[Json] = summary.get("phases", ())
    return {str(phase["name"]): phase for phase in phases}


def _json(path: Path) -> Json:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise StockflowError(f"{path} cannot be read as JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise StockflowError(f"{path} holds no JSON object")
    return found
