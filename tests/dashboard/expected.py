"""What the page has to show of the planted run, worked out with loops over single numbers."""

from __future__ import annotations

import math

from tests.dashboard.planted import HORIZONS, PREDICTED, predicted_return, price


def errors(horizon: int, minutes: int) -> dict[int, list[tuple[float, float]]]:
    """By target minute, errors of the prediction and of "the price stays" in bp, of what was seen by `minutes`."""
    found: dict[int, list[tuple[float, float]]] = {}
    for ticker in PREDICTED:
        for minute in range(minutes - horizon):
            moved = math.log(price(ticker, minute + horizon) / price(ticker, minute))
            error = 1e4 * abs(moved - predicted_return(ticker, minute, horizon))
            found.setdefault(minute + horizon, []).append((error, 1e4 * abs(moved)))
    return found


def mean_errors(horizon: int, minutes: int) -> tuple[float, float]:
    """Over everything that was seen."""
    pairs = [pair for of_minute in errors(horizon, minutes).values() for pair in of_minute]
    return sum(error for error, _ in pairs) / len(pairs), sum(still for _, still in pairs) / len(pairs)


def rolling(horizon: int, minutes: int, window_min: int) -> dict[int, tuple[float, float]]:
    """Mean errors by target minute over the minutes before it, itself included."""
    by_minute = errors(horizon, minutes)
    means = {}
    for target in by_minute:
        near = [pair for at, pairs in by_minute.items() if target - window_min < at <= target for pair in pairs]
        means[target] = (
            sum(error for error, _ in near) / len(near),
            sum(still for _, still in near) / len(near),
        )
    return means


def accuracy_row(horizon: int, minutes: int) -> list[str]:
    """The cells of the table of errors."""
    pairs = [
        (math.log(price(ticker, at + horizon) / price(ticker, at)), predicted_return(ticker, at, horizon), ticker, at)
        for ticker in PREDICTED
        for at in range(minutes - horizon)
    ]
    error, still = mean_errors(horizon, minutes)
    skill = 1 - sum((moved - said) ** 2 for moved, said, *_ in pairs) / sum(moved**2 for moved, *_ in pairs)
    right = [(moved > 0) == (said > 0) for moved, said, *_ in pairs if moved]
    within = [
        abs(price(ticker, at + horizon) - price(ticker, at) * math.exp(said)) <= 0.1 for _, said, ticker, at in pairs
    ]
    return [
        f"{horizon} min",
        f"{len(pairs):,} of {minutes * len(PREDICTED):,}",
        f"{error:.2f} bp",
        f"{still:.2f} bp",
        f"{skill:+.4f}",
        f"{100 * sum(right) / len(right):.1f} %",
        f"{100 * sum(within) / len(within):.1f} %",
    ]


def accuracy_rows(minutes: int) -> list[list[str]]:
    """All of them."""
    return [accuracy_row(horizon, minutes) for horizon in HORIZONS]
