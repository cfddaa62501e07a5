"""What came of it: predictions, their errors, the market as a whole, coverage and models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pandas as pd
from dash import dcc, html

from dashboard import text
from dashboard.coverage import Coverage
from dashboard.forecasts import BP, Accuracy
from dashboard.models import Model, Models
from dashboard.parts import Part, pill, sentence, table

_TILES_MOST: Final = 400
_LACKS_MOST: Final = 30
_MODELS_MOST: Final = 50
_FULL_MOVE: Final = 0.75
"""How strong the strongest predicted move is coloured."""


def newest_window(rows: pd.DataFrame) -> Part:
    """What a ticker's newest window predicts. rows: as dashboard.forecasts.newest_of."""
    if not len(rows):
        return None
    made = rows.iloc[0]
    cells = [
        (
            f"{row.horizon_min} min",
            text.exchange_minute(row.target)[-5:],
            text.usd(row.predicted_price),
            text.bp(row.predicted_return * BP, signed=True),
            f"{text.usd(row.price_p10)} to {text.usd(row.price_p90)}",
        )
        for row in rows.itertuples()
    ]
    return html.Div(
        [
            html.H3(
                f"{made['ticker']} as of {text.exchange_minute(made['as_of'])}, New York:"
                f" {text.usd(made['last_price'])} USD"
            ),
            table(("ahead", "minute", "USD", "move", "10 to 90 %"), cells, name="newest", numbers=(0, 1, 2, 3, 4)),
        ]
    )


def accuracy_table(accuracies: Sequence[Accuracy]) -> Part:
    """How the run's predictions came out so far, by horizon."""
    if not any(row.known for row in accuracies):
        return sentence("Errors come once minutes that were predicted have been seen.")
    rows = [
        (
            f"{row.horizon_min} min",
            f"{row.known:,} of {row.predictions:,}",
            text.bp(row.mae_bp),
            text.bp(row.mae_still_bp),
            text.skill(row.skill),
            text.percent(row.direction),
            text.percent(row.within),
        )
        for row in accuracies
    ]
    heads = ("ahead", "seen", "error", "“stays”", "skill", "direction", "in 10 to 90 %")
    return table(heads, rows, name="accuracy", numbers=range(7))


def moves_words(rows: pd.DataFrame, horizon_min: int) -> str:
    """What the tiles show."""
    newest = text.exchange_minute(rows["as_of"].max())
    return (
        f"Basis points that each ticker's newest window predicts for {horizon_min} minutes ahead; the newest as of"
        f" {newest}, New York."
    )


def moves(rows: pd.DataFrame) -> list[Part]:
    """A tile for each ticker, coloured by what its newest window predicts: as dashboard.forecasts.newest_moves."""
    strongest = rows["move_bp"].abs().max() or 1.0
    shown = rows.loc[rows["move_bp"].abs().nlargest(_TILES_MOST).index.sort_values()]
    parts: list[Part] = [
        _move(row.ticker, row.move_bp, row.move_bp / strongest, row.as_of) for row in shown.itertuples()
    ]
    if len(shown) < len(rows):
        parts.append(html.P(f"the {_TILES_MOST} strongest of {len(rows):,}", className="hint"))
    return parts


def _move(ticker: str, move_bp: float, strength: float, as_of: Any) -> Part:
    color = "59, 130, 246" if move_bp >= 0 else "224, 108, 60"
    return html.Div(
        [html.B(ticker), html.Span(f"{move_bp:+.1f}")],
        className="move",
        style={"background": f"rgba({color}, {0.08 + _FULL_MOVE * abs(strength):.2f})"},
        title=f"{ticker}: {move_bp:+.2f} bp, as of {text.exchange_minute(as_of)}, New York",
    )


def coverage_words(coverage: Coverage | None) -> str:
    """The coverage in a sentence."""
    if coverage is None:
        return "Coverage comes when the ingest has ended."
    counts = ", ".join(f"{count:,} {status}" for status, count in coverage.statuses.items() if count)
    return (
        f"{coverage.requested:,} tickers on {len(coverage.days)} days: {counts}. {coverage.rows:,} bars;"
        f" {coverage.coverage:.1%} of the known tickers have an answer for each day."
    )


def lacks(coverage: Coverage | None) -> Part:
    """The tickers that are not complete."""
    if coverage is None or not coverage.lacks:
        return None
    rows = [
        (
            lack.ticker,
            pill(lack.status),
            f"{lack.rows:,}",
            lack.error or ", ".join(f"{day[5:]} {status}" for day, status in lack.days.items()),
        )
        for lack in coverage.lacks[:_LACKS_MOST]
    ]
    more = len(coverage.lacks) - len(rows)
    return html.Div(
        [
            html.H3("Not complete"),
            table(("ticker", "", "bars", "why"), rows, name="lacks", numbers=(2,)),
            html.P(f"and {more:,} more", className="hint") if more else None,
        ]
    )


def model_history(models: Models) -> Part:
    """All models, the newest first, with what the gate decided."""
    if not models.rows:
        return sentence("Models come with the train phase, decisions with the promotion.")
    rows = [_model_row(model, models.current) for model in models.rows[:_MODELS_MOST]]
    heads = ("model", "trained", "", "validation", "the one that served", "test", "why")
    current = models.find(models.current)
    return html.Div(
        [
            table(heads, rows, name="models", numbers=(3, 4, 5)),
            html.P(
                "Skill: 1 - MSE / MSE of “the price stays”, on days that the model was not fitted to.", className="hint"
            ),
            html.Details([html.Summary("Card of the model that serves"), dcc.Markdown(current.card)], id="card")
            if current and current.card
            else None,
        ]
    )


def _model_row(model: Model, current: str) -> tuple[Part, ...]:
    decided = "not decided" if model.promoted is None else "promoted" if model.promoted else "not promoted"
    marks = [pill(decided)] + ([html.Span("serves", className="pill busy")] if model.model_id == current else [])
    metrics = model.metrics
    return (
        model.model_id,
        text.instant(model.trained_at or model.decided_at),
        marks,
        text.skill(metrics.validation.skill if metrics else None),
        text.skill(model.rival_skill),
        text.skill(metrics.test.skill if metrics else None),
        html.Span(model.reason, className="reason"),
    )
