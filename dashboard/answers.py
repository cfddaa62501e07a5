"""What the page is answered when time passes, when what was read has changed, and when somebody chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from dash import html, no_update
from dash.exceptions import PreventUpdate

from dashboard import figures, forecasts, outcomes, overview
from dashboard.page import PARTS
from dashboard.snapshot import Snapshot
from dashboard.watch import Watch

_NO_CHART: Final[tuple[Any, bool]] = ({"data": [], "layout": {}}, True)
_NOTES: Final = 3
"""Objects that cannot be understood and are named."""
_EXPLAINED: Final = (
    f"Mean absolute error of the log return over the last {forecasts.ROLLING_MIN} minutes, over all tickers, of"
    " predictions whose minute has been seen."
)


class Answers:
    """One method for each callback of dashboard.server; the orders of arguments and values are those given there."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def look(self, _: int | None, run: str, *held: str) -> tuple[Any, ...]:
        """Every few seconds: what is wrong, and which parts have changed. held: the marks of what the page shows."""
        seen = self._watch.seen(_run_id(run))
        trouble = [f"{seen.trouble}. Trying again …"] if seen.trouble else []
        if seen.snapshot is None:
            return (no_update, _lines(trouble), None, True, no_update, *[no_update] * len(PARTS))
        snapshot = seen.snapshot
        source = f"{snapshot.source}, read at {snapshot.read_at:%H:%M:%S} UTC"
        welcome = None if snapshot.run.run_id else overview.welcome()
        fresh = [snapshot.marks[part] for part in PARTS]
        marks = [no_update if mark == old else mark for mark, old in zip(fresh, held, strict=True)]
        options = overview.run_options(snapshot.runs, snapshot.run.run_id)
        return (source, _lines([*trouble, *_few(snapshot.notes)]), welcome, welcome is not None, options, *marks)

    def overview(self, *marks_and_run: str) -> tuple[Any, ...]:
        """Tiles, execution, stream and losses."""
        snapshot = self._snapshot(marks_and_run[-1])
        training = snapshot.run.training
        chart = (figures.loss_chart(training), False) if training and training.history else _NO_CHART
        return (
            overview.tiles(snapshot),
            overview.execution(snapshot),
            overview.stream(snapshot),
            *chart,
            overview.training_words(snapshot.run),
        )

    def predictions(self, _: str, ticker: str | None, horizon: int | None, run: str) -> tuple[Any, ...]:
        """All that is made of predictions, for the chosen ticker and horizon."""
        snapshot = self._snapshot(run)
        frame = snapshot.forecasts
        tickers, minutes = forecasts.tickers(frame), forecasts.horizons(frame)
        if not tickers:
            words = "Predictions come with the serve phase."
            nothing = (*_NO_CHART, words, None, *_NO_CHART, words, None, words, None)
            return (True, [], None, [], None, *nothing)
        chosen = ticker if ticker in tickers else tickers[0]
        ahead = horizon if horizon in minutes else minutes[-1]
        rows, errors = forecasts.of_ticker(frame, chosen, ahead), forecasts.rolling_errors(frame, ahead)
        moves = forecasts.newest_moves(frame, ahead)
        return (
            False,
            tickers,
            chosen,
            [{"label": f"{count} min", "value": count} for count in minutes],
            ahead,
            *(_kept(figures.forecast_chart(rows, ahead), snapshot, chosen, ahead), False, ""),
            outcomes.newest_window(forecasts.newest_of(frame, chosen)),
            *((_kept(figures.error_chart(errors), snapshot, ahead), False) if len(errors) else _NO_CHART),
            _EXPLAINED if len(errors) else "",
            outcomes.accuracy_table(snapshot.accuracies),
            outcomes.moves_words(moves, ahead),
            outcomes.moves(moves),
        )

    def coverage(self, _: str, run: str) -> tuple[Any, ...]:
        """The heat map of coverage, and what is not complete."""
        coverage = self._snapshot(run).coverage
        chart = (figures.coverage_chart(coverage), False) if coverage and coverage.share else _NO_CHART
        return (*chart, outcomes.coverage_words(coverage), outcomes.lacks(coverage))

    def models(self, _: str, run: str) -> Any:
        """The history of models."""
        return outcomes.model_history(self._snapshot(run).models)

    def _snapshot(self, run: str) -> Snapshot:
        snapshot = self._watch.seen(_run_id(run)).snapshot
        if snapshot is None:
            raise PreventUpdate
        return snapshot


def _run_id(chosen: str | None) -> str:
    return "" if chosen in {None, overview.NEWEST} else str(chosen)


def _few(notes: Sequence[str]) -> list[str]:
    """The first of them, and how many more there are: all objects of an older version would fill the page."""
    more = [f"and {len(notes) - _NOTES:,} more such objects"] if len(notes) > _NOTES else []
    return [*notes[:_NOTES], *more]


def _lines(lines: Sequence[str]) -> list[Any]:
    return [html.P(line) for line in lines]


def _kept(figure: figures.Figure, snapshot: Snapshot, *choices: Any) -> figures.Figure:
    """The figure, whose zoom outlasts new data but not another choice."""
    figure["layout"]["uirevision"] = "-".join(map(str, (snapshot.run.run_id, *choices)))
    return figure
