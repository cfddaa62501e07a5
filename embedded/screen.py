"""What the person who waits for an execution sees: its states as they run, and what their tasks say.

On a terminal that is one live table, elsewhere a line for each state that begins or ends, and now and then one of how
far it is.
"""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from app import contract
from embedded.execution import Execution, StateRun
from embedded.fates import Fate, read_fate, read_note, say, worst_first
from embedded.phase_logs import parse
from embedded.phases import phase_of

_PLAIN_WIDTH = 160
_PLAIN_EVERY_S = 10.0
_MINUTE_S = 60.0
_SHARDS_SHOWN = 8
_FATES_SHOWN = 8
_FATES_PRINTED = 20
_EPOCH = re.compile(r"\bepoch=(\d+)\b.*?\bloss=([0-9.eE+-]+)")
_MARKS = {
    "running": "[yellow]running[/]",
    "done": "[green]done[/]",
    "failed": "[red]failed[/]",
    "interrupted": "[red]interrupted[/]",
}
_ENDS = {"done": "ended", "failed": "failed", "interrupted": "interrupted"}
_LAST = datetime.max.replace(tzinfo=UTC)
_CHOICES = re.compile(r"^If[A-Z]")
"""States that only choose the next one."""


@dataclass
class StateNote:
    """How far the tasks of a state are. done: by task, (done, total, of what); fates: by task, of single tickers."""

    done: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    fates: dict[str, dict[str, Fate]] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)
    lag_s: float | None = None
    predictions: deque[tuple[float, float]] = field(default_factory=deque)

    def say(self, label: str, line: str) -> bool:
        """Take in a line; returns whether it said something new."""
        if epoch := _EPOCH.search(line):
            self.losses.append(f"{float(epoch[2]):.4f}")
            return True
        if fate := read_fate(line):
            self.fates.setdefault(label, {})[fate.ticker] = fate
            return True
        said = parse(line)
        if said is None:
            return False
        if contract.METRIC_PREDICTIONS in said:
            self.lag_s = said.get(contract.METRIC_STREAM_LAG, self.lag_s)
            self.predictions.append((said["_aws"]["Timestamp"] / 1000, said[contract.METRIC_PREDICTIONS]))
            return True
        if "phase" in said and "done" in said:
            if label in self.done and said["done"] < self.done[label][0]:  # it is tried again
                self.fates.pop(label, None)
            self.done[label] = (said["done"], said["total"], said["note"])
            return True
        return False

    def shards(self, size: int) -> list[str]:
        """The tasks of an array job: how many are done of all, then how far those are that have begun."""
        complete = sum(done >= total for done, total, _ in self.done.values())
        begun = sorted(self.done.items(), key=lambda one: int(one[0].partition(" ")[2] or 0))
        lines = [f"shard {label.partition(' ')[2]}: {done:,}/{total:,}" for label, (done, total, _) in begun]
        more = [f"{len(lines) - _SHARDS_SHOWN} more"] if len(lines) > _SHARDS_SHOWN else []
        return [f"{complete}/{size} shards done", *lines[:_SHARDS_SHOWN], *more]

    def incomplete(self) -> list[Fate]:
        """Of all tasks the tickers that ended without all their bars, the worst first."""
        return worst_first(fate for fates in self.fates.values() for fate in fates.values())

    def __str__(self) -> str:
        """In a few words."""
        words = []
        if self.done and not self.predictions:
            words.append(self._summed())
        if self.losses:
            words.append(f"loss {' '.join(self.losses)}")
        if self.predictions:
            newest = self.predictions[-1][0]
            recent = sum(count for at, count in self.predictions if at > newest - _MINUTE_S)
            words.append(f"{recent:,.0f} predictions in the last minute")
        if self.lag_s is not None:
            words.append(f"lag {self.lag_s:.1f} s")
        return ", ".join(words)

    def _summed(self) -> str:
        """What all tasks have done: 14/18 tickers: 13 complete, 1 failed."""
        tasks_done, totals, notes = zip(*self.done.values(), strict=True)
        units, counts = zip(*map(read_note, notes), strict=True)
        how = say(sum(counts, Counter()))
        return f"{sum(tasks_done):,}/{sum(totals):,} {', '.join(sorted(set(units)))}{f': {how}' if how else ''}"


class Screen:
    """Shows one execution after the other."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self._plain = not self.console.is_terminal
        if self._plain:
            self.console.width = _PLAIN_WIDTH
        self._live = Live(console=self.console, auto_refresh=False)
        self._notes: dict[str, StateNote] = {}
        self._news: set[str] = set()
        self._begun: set[int] = set()
        self._over: set[int] = set()
        self._told_at: dict[str, float] = {}
        self._told_fates: dict[str, set[Fate]] = {}

    def __enter__(self) -> Screen:
        """Start the live display."""
        if not self._plain:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Stop it, whatever happened."""
        self._live.stop()

    def note(self, text: str) -> None:
        """One line, above what is live."""
        self.console.print(text, markup=False)

    def said(self, label: str, line: str) -> None:
        """A line of a task of a state."""
        name = label.partition(" ")[0]
        if self._notes.setdefault(name, StateNote()).say(label, line):
            self._news.add(name)

    def show(self, execution: Execution) -> None:
        """The execution as it stands."""
        if self._plain:
            self._tell_states(execution)
        else:
            self._live.update(self.table(execution), refresh=True)

    def table(self, execution: Execution) -> Table:
        """All states that were entered, but for those that only choose."""
        table = Table("phase", "state", "", "s", "", title=f"{execution.name}: {execution.status}", expand=False)
        for state in execution.states:
            if not _CHOICES.match(state.name):
                phase = phase_of(state.name) or ""
                table.add_row(phase, state.name, _MARKS[state.status], _seconds(state), self._told(state))
                if state.status == "running":
                    for shard in self._shards(state)[1:]:
                        table.add_row("", "", "", "", shard)
                for fate in self._incomplete(state):
                    table.add_row("", "", "", "", escape(fate))
        return table

    def _tell_states(self, execution: Execution) -> None:
        """What has begun or ended since the last time, as it came, and then how far the running ones are."""
        told: list[tuple[datetime, str]] = []
        for number, state in enumerate(execution.states):
            if _CHOICES.match(state.name):
                continue
            if number not in self._begun:
                self._begun.add(number)
                told.append((state.entered, f"{state.name}: started"))
            told += [(state.ended or _LAST, f"  {state.name}: {fate}") for fate in self._new_fates(state)]
            if state.ended and number not in self._over:
                self._over.add(number)
                how = f"{_ENDS[state.status]} after {state.seconds:.1f} s"
                told.append((state.ended, f"{state.name}: {how} {self._told(state)}".rstrip()))
            elif not state.ended and state.name in self._news and self._is_time(state.name):
                self._news.remove(state.name)
                told.append((_LAST, f"  {state.name}: {self._told(state)}"))
        for _, line in sorted(told, key=lambda one: one[0]):
            self.note(line)

    def _told(self, state: StateRun) -> str:
        words = [state.error] if state.error else [str(self._notes.get(state.name, "")), *self._shards(state)[:1]]
        far = ", ".join(filter(None, words))
        return f"try {state.attempts}, {far}" if state.attempts > 1 else far

    def _shards(self, state: StateRun) -> list[str]:
        size = state.parameters.get("ArrayProperties", {}).get("Size", 0)
        return self._notes.get(state.name, StateNote()).shards(size) if size else []

    def _incomplete(self, state: StateRun) -> list[str]:
        """The tickers of a state that are not complete, as many as there is room for."""
        fates = self._notes.get(state.name, StateNote()).incomplete()
        more = [f"{len(fates) - _FATES_SHOWN} more"] if len(fates) > _FATES_SHOWN else []
        return [*map(str, fates[:_FATES_SHOWN]), *more]

    def _new_fates(self, state: StateRun) -> Iterator[Fate]:
        """Those of a state's tickers that have not been told yet; after some they are in its log alone."""
        told = self._told_fates.setdefault(state.name, set())
        for fate in self._notes.get(state.name, StateNote()).incomplete():
            if fate not in told and len(told) < _FATES_PRINTED:
                told.add(fate)
                yield fate

    def _is_time(self, name: str) -> bool:
        now = time.monotonic()
        if now - self._told_at.get(name, -_PLAIN_EVERY_S) < _PLAIN_EVERY_S:
            return False
        self._told_at[name] = now
        return True


def _seconds(state: StateRun) -> str:
    if state.seconds is not None:
        return f"{state.seconds:.1f}"
    return f"{time.time() - state.entered.timestamp():.0f}"
