"""The charts, as the plain documents that plotly.js draws. Times are shown as the exchange's clocks have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from app import contract
from dashboard.coverage import Coverage
from dashboard.execution import Training

Figure = dict[str, Any]
BLUE, ORANGE, SLATE, RED = "#3b82f6", "#e08a1e", "#7b8798", "#dc4c4c"
_BAND: Final = "rgba(59, 130, 246, 0.16)"
_GRID: Final = "rgba(123, 135, 152, 0.2)"
_CLEAR: Final = "rgba(0, 0, 0, 0)"
_FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_COVERAGE_SCALE: Final = [[0, RED], [0.5, "#e9a23b"], [0.9, "#8fc9a3"], [1, "#2f9e62"]]
_ROW_PX: Final = 15
_LEAST_PX, _MOST_PX = 180, 900
_GAPS_UP_TO: Final = 60
"""With more tickers than these there is no room for gaps between their rows."""


def forecast_chart(rows: pd.DataFrame, horizon_min: int) -> Figure:
    """One ticker's prices, what was predicted of each minute, and the band in which 80 % of them are expected.

    rows: as dashboard.forecasts.of_ticker. A prediction stands at the minute that it is about.
    """
    target, as_of = _local(rows["target"]), _local(rows["as_of"])
    band = {"type": "scatter", "x": target, "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    return {
        "data": [
            {**band, "y": _numbers(rows["price_p90"], 4), "showlegend": False, "name": "p90"},
            {**band, "y": _numbers(rows["price_p10"], 4), "fill": "tonexty", "fillcolor": _BAND, "name": "10 to 90 %"},
            _line(as_of, _numbers(rows["last_price"], 4), "price", SLATE, width=1.6, hover="%{y:,.2f} USD"),
            _line(
                target,
                _numbers(rows["predicted_price"], 4),
                f"predicted {horizon_min} min before",
                BLUE,
                width=1.4,
                hover="%{y:,.2f} USD",
            ),
        ],
        "layout": _layout("USD", rows["target"]),
    }


def error_chart(errors: pd.DataFrame) -> Figure:
    """Errors over time. errors: as dashboard.forecasts.rolling_errors."""
    at = _local(errors["target"])
    hover = "%{y:.2f} bp"
    layout = _layout("bp", errors["target"])
    layout["yaxis"]["rangemode"] = "tozero"
    return {
        "data": [
            _line(at, _numbers(errors["still_bp"], 3), "the price stays", ORANGE, hover=hover),
            _line(at, _numbers(errors["error_bp"], 3), "prediction", BLUE, hover=hover),
        ],
        "layout": layout,
    }


def loss_chart(training: Training) -> Figure:
    """Losses by epoch; those of the epoch that runs as they come."""
    epochs = list(range(1, len(training.history) + 1))
    mode = "lines+markers" if len(epochs) > 1 or not training.running else "markers"
    lines = [
        _line(epochs, [_rounded(row[name]) for row in training.history], label, color, mode=mode, hover="%{y:.4f}")
        for name, label, color in (("loss", "training", BLUE), ("validation_loss", "validation", ORANGE))
    ]
    if training.running:
        mean = sum(training.running) / len(training.running)
        now = _line([len(epochs) + 1], [_rounded(mean)], "epoch that runs", BLUE, mode="markers", hover="%{y:.4f}")
        lines.append({**now, "marker": {"symbol": "circle-open", "size": 10, "line": {"width": 2}}})
    layout = _layout("loss")
    most = max(training.epochs or 0, len(epochs) + bool(training.running), 1)
    layout["xaxis"] |= {"title": {"text": "epoch"}, "range": [0.8, most + 0.2], "dtick": max(1, -(-most // 10))}
    return {"data": lines, "layout": layout}


def coverage_chart(coverage: Coverage) -> Figure:
    """The share of each day's minutes that has a bar, by ticker and day."""
    tickers = list(coverage.share)
    told = [[_percent(share) for share in coverage.share[ticker]] for ticker in tickers]
    layout = _layout("")
    layout["height"] = min(max(_LEAST_PX, 64 + _ROW_PX * len(tickers)), _MOST_PX)
    gap = 2 if len(tickers) <= _GAPS_UP_TO else 0
    layout["hovermode"] = "closest"
    layout["margin"] |= {"t": 56, "b": 8}
    layout["xaxis"] |= {"type": "category", "side": "top", "showgrid": False, "tickangle": -45, "automargin": True}
    layout["xaxis"] |= {"tickvals": coverage.days, "ticktext": [day[5:] for day in coverage.days]}
    layout["yaxis"] |= {
        "type": "category",
        "autorange": "reversed",
        "showgrid": False,
        "automargin": True,
        "nticks": 40,
    }
    return {
        "data": [
            {
                "type": "heatmap",
                "x": list(coverage.days),
                "y": tickers,
                "z": [list(coverage.share[ticker]) for ticker in tickers],
                "zmin": 0,
                "zmax": 1,
                "customdata": told,
                "colorscale": _COVERAGE_SCALE,
                "showscale": False,
                "xgap": gap,
                "ygap": gap,
                "hovertemplate": "%{y}, %{x}: %{customdata} of the minutes<extra></extra>",
            }
        ],
        "layout": layout,
    }


def _line(
    x: Sequence[Any],
    y: Sequence[Any],
    name: str,
    color: str,
    *,
    width: float = 2.0,
    mode: str = "lines",
    hover: str = "%{y}",
) -> Figure:
    line = {"color": color, "width": width}
    return {
        **{"type": "scatter", "mode": mode, "x": list(x), "y": list(y), "name": name, "line": line},
        "hovertemplate": f"{hover}<extra>{name}</extra>",
    }


def _layout(unit: str, times: Any = None) -> Figure:
    """What all charts share. times: of the axis, where it is one of time."""
    axis: Mapping[str, Any] = {"gridcolor": _GRID, "zeroline": False, "linecolor": _GRID}
    layout: Figure = {
        "paper_bgcolor": _CLEAR,
        "plot_bgcolor": _CLEAR,
        "font": {"family": _FONT, "size": 12, "color": SLATE},
        "margin": {"l": 52, "r": 12, "t": 30, "b": 40},
        "hovermode": "x unified",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {**axis},
        "yaxis": {**axis, "title": {"text": unit, "standoff": 6}},
    }
    if times is not None:
        layout["xaxis"]["title"] = {"text": "New York time", "standoff": 8}
        if times.dt.date.nunique() > 1:
            nights = {"pattern": "hour", "bounds": [16, 9.5]}
            layout["xaxis"]["rangebreaks"] = [{"bounds": ["sat", "mon"]}, nights]
    return layout


def _local(times: Any) -> list[str]:
    """UTC without a zone, as New York's clocks show it."""
    local = times.dt.tz_localize("UTC").dt.tz_convert(contract.EXCHANGE_TIMEZONE)
    return [str(text) for text in local.dt.strftime("%Y-%m-%d %H:%M")]


def _numbers(values: Any, digits: int) -> list[float | None]:
    """Rounded, None for what is none: JSON knows no NaN."""
    return [_rounded(value, digits) for value in values]


def _rounded(value: float, digits: int = 5) -> float | None:
    return None if pd.isna(value) else round(float(value), digits)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
