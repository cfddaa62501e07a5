"""The page: where its parts stand. What they show comes from dashboard.overview, outcomes and figures."""

from __future__ import annotations

from typing import Any, Final

from dash import dcc, html

from dashboard.overview import NEWEST

PARTS: Final = ("run", "forecasts", "coverage", "models")
"""Parts of a snapshot that change by themselves; the page is drawn anew where the mark of one has changed."""
_CHART: Final[Any] = {"displayModeBar": False, "responsive": True, "showTips": False}


def page(run_id: str, every_s: float) -> Any:
    """The page before anything was read. run_id: the run to show, the newest when it is empty."""
    return html.Div(
        [
            dcc.Interval(id="clock", interval=int(every_s * 1000)),
            *(dcc.Store(id=f"mark-{part}", data="") for part in PARTS),
            _head(run_id),
            html.Div(id="trouble", role="status"),
            html.Main(
                [
                    html.Div(id="welcome-place", className="wide"),
                    html.Div([*_overview(), *_forecasts(), *_history()], id="run-parts", className="grid", hidden=True),
                ]
            ),
        ]
    )


def _head(run_id: str) -> Any:
    chosen = run_id or NEWEST
    options = [{"label": run_id or "newest", "value": chosen}]
    return html.Header(
        [
            html.H1("stockflow"),
            dcc.Dropdown(options, chosen, id="run", clearable=False, className="run"),
            html.Div("reading …", id="source"),
        ]
    )


def _overview() -> list[Any]:
    return [
        html.Div(id="tiles", className="wide tiles"),
        _card("Execution", html.Div(id="execution"), span="half"),
        html.Div(
            [
                _card("Training", html.P(id="training-words", className="hint"), _chart("loss", 240)),
                _card("Stream", html.Div(id="stream-place")),
            ],
            className="half stack",
        ),
    ]


def _forecasts() -> list[Any]:
    choosers = html.Div(
        [
            html.Label(["ticker", dcc.Dropdown(id="ticker", clearable=False, className="chooser")]),
            html.Label(
                ["minutes ahead", dcc.Dropdown(id="horizon", clearable=False, searchable=False, className="chooser")]
            ),
        ],
        className="choosers",
        id="choosers",
        hidden=True,
    )
    return [
        _card(
            "Predictions against prices",
            choosers,
            html.P(id="forecast-words", className="empty"),
            _chart("forecast", 360),
            html.Div(id="newest-place"),
            span="wide",
        ),
        _card(
            "Error against “the price stays”",
            html.P(id="error-words", className="hint"),
            _chart("error", 300),
            html.Div(id="accuracy-place"),
            span="half",
        ),
        _card(
            "Predicted moves of the market",
            html.P(id="moves-words", className="hint"),
            html.Div(id="moves", className="moves"),
            span="half",
        ),
    ]


def _history() -> list[Any]:
    return [
        _card(
            "Coverage by ticker and day",
            html.P(id="coverage-words", className="hint"),
            _chart("coverage", None),
            html.Div(id="lacks-place"),
            span="wide",
        ),
        _card("Models and promotions", html.Div(id="models-place"), span="wide"),
    ]


def _card(heading: str, *parts: Any, span: str = "") -> Any:
    return html.Section([html.H2(heading), *parts], className=f"card {span}".strip())


def _chart(name: str, height_px: int | None) -> Any:
    """A chart that is hidden until there is something to draw. height_px: None where the chart has its own."""
    style = {"height": f"{height_px}px" if height_px else "auto"}
    graph = dcc.Graph(id=name, config=_CHART, style=style, figure={"data": [], "layout": {}})
    return html.Div(graph, id=f"{name}-frame", className="chart", hidden=True)
