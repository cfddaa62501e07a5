"""What the person who waits for a run sees: one live line a phase, then tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from app import contract
from app.processes import OUR_MESSAGE
from embedded.summary import LOGS, SUMMARY

if TYPE_CHECKING:
    from embedded.pipeline import PhaseRun

_PREDICTIONS_SHOWN = 5
_PLAIN_WIDTH = 160


class Screen:
    """Live bars on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = _PLAIN_WIDTH
        self._tasks: dict[str, TaskID] = {}
        self._bars = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Screen:
        """Start the live display."""
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Stop it, whatever happened."""
        self._bars.stop()

    def note(self, text: str) -> None:
        """One line above the bars."""
        self.console.print(text, markup=False)

    def begin(self, phase: str) -> None:
        """A phase starts."""
        self._tasks[phase] = self._bars.add_task(phase, total=None, note="starting")
        if self._bars.disable:
            self.note(f"{phase}: started")

    def progress(self, phase: str, done: int, total: int, note: str) -> None:
        """A phase got on."""
        if phase in self._tasks:
            self._bars.update(self._tasks[phase], completed=done, total=total or None, note=note)

    def end(self, phase: str, status: str, wall_s: float) -> None:
        """A phase ended."""
        self._bars.update(self._tasks[phase], note=f"{status}")
        self._bars.stop_task(self._tasks[phase])
        if self._bars.disable:
            self.note(f"{phase}: {status} after {wall_s:.1f} s")

    def conclude(self, summary: Mapping[str, Any], phases: Sequence[PhaseRun], out: Path) -> int:
        """Print the tables; returns the exit status of the run."""
        self.console.print(_phase_table(summary))
        if summary["tickers_requested"] is not None:
            self._print_findings(summary)
        if (latest := out / contract.LATEST_PREDICTIONS_KEY).is_file():
            self.console.print(_prediction_table(json.loads(latest.read_bytes())["predictions"]))
        self.note(f"summary: {out / SUMMARY}")
        failed = next((phase for phase in phases if phase.status == "failed"), None)
        if failed is None:
            return 0
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"{OUR_MESSAGE}{failed.name} failed: {failed.error} (log: {out / LOGS / failed.name}.log)", markup=False
        )
        return failed.exit_code

    def _print_findings(self, summary: Mapping[str, Any]) -> None:
        states = ", ".join(f"{count} {status}" for status, count in summary["tickers_by_status"].items() if count)
        self.note(f"coverage: {summary['tickers_requested']} tickers x {len(summary['days'])} sessions: {states}")
        if summary["volume_faults"]:
            days = ", ".join(summary["volume_fault_days"])
            self.note(f"faulty volume: {summary['volume_faults']} ticker-days, on {days}")
        if summary["mae_usd"] is not None:
            test = summary["metrics"]["test"]
            self.note(
                f"model on the test days: mean absolute error {test['mae_usd']:.5f} USD, persistence"
                f" {test['mae_persistence_usd']:.5f} USD; skill {test['skill']:+.4f}; direction {test['direction']:.3f}"
            )
            if summary["promotion_reason"] is not None:
                self.note(
                    f"model {'promoted' if summary['promoted'] else 'not promoted'}: {summary['promotion_reason']}"
                )
            self.note(f"ranks: {summary['ranks']}, largest weight difference {summary['rank_weight_max_diff']:g}")
        self.note(f"peak memory of all processes: {summary['peak_rss_mib']:,} MiB")


def _phase_table(summary: Mapping[str, Any]) -> Table:
    table = Table("phase", "status", "wall s", "rows", "where", title=f"run {summary['run_id']}: {summary['status']}")
    for phase in summary["phases"]:
        rows = "" if phase["rows"] is None else f"{phase['rows']:,}"
        table.add_row(phase["name"], phase["status"], f"{phase['wall_s']:.1f}", rows, phase["where"] or "")
    return table


def _prediction_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("ticker", "as of (UTC)", "last USD", "predicted USD", "move bp", title="newest predictions")
    for row in rows[:_PREDICTIONS_SHOWN]:
        table.add_row(
            row["ticker"],
            row["as_of"],
            f"{row['last_price']:.4f}",
            f"{row['predicted_price']:.4f}",
            f"{row['predicted_return'] * 1e4:+.2f}",
        )
    return table
