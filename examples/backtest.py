"""A long/short backtest of stored predictions, with costs: how to find out honestly what they are worth.

    .venv/bin/python examples/backtest.py --bucket ./build/run --cost-bp 2

Every `horizon` minutes it buys the tickers with the highest predicted returns and sells those with the lowest, in equal
parts, and holds them for `horizon` minutes. What makes it honest:

- A prediction as of a bar is known when the bar is over. The first price that one can get is that of the next minute,
  not the one that the prediction was made from; the first line of the output shows what that difference is worth.
- Each purchase and each sale costs, in basis points of its value: half of the spread, fees, and what the order moves.
- Whoever is chosen counts, also without a bar when the position is closed (at its last price then). To leave out what
  cannot be priced later would be to look ahead.
- Holding periods do not overlap, so each price move counts once.
- The rivals are not to trade at all, which earns 0, and a coin for each period that decides which side is bought.
- Days are drawn again for the interval where there are enough of them, for minutes of one day are alike.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app import consumer
from app.errors import StockflowError

FloatArray = npt.NDArray[np.float64]

BP = 1e4
DRAWS = 2000
ENOUGH_DAYS = 5
"""Fewer are not drawn again: an interval from two or three days holds the truth far too seldom."""
COLUMNS = ("ticker", "as_of", "horizon_min", "last_price", "predicted_return")


@dataclass(frozen=True)
class Periods:
    """Holding periods (n,): mean return of the positions of each, in basis points, and the day it belongs to.

    at_forecast_bp: as if one could trade at the price that the forecast was made from; gross_bp: a minute later;
    net_bp: after costs. positions: how many each period has on both sides together, on average.
    """

    day: npt.NDArray[np.int64]
    at_forecast_bp: FloatArray
    gross_bp: FloatArray
    net_bp: FloatArray
    positions: float


def backtest(rows: Any, *, horizon_min: int, cost_bp: float, share: float = 0.2) -> Periods:
    """Trade the predictions at one horizon.

    rows: pandas frame with COLUMNS; cost_bp: of each purchase and each sale; share: of the tickers on either side, one
    at least. Raises ValueError when there is nothing to trade.
    """
    found = [
        (number, *returns)
        for number, (_, of_day) in enumerate(rows.groupby(rows["as_of"].dt.date))
        for returns in _periods_of(of_day, horizon_min, share)
    ]
    if not found:
        raise ValueError(f"no two tickers were predicted {horizon_min} min ahead, minutes before the close")
    day, at_forecast, gross, positions = (np.array(column) for column in zip(*found, strict=True))
    return Periods(day.astype(np.int64), at_forecast * BP, gross * BP, gross * BP - 2 * cost_bp, positions.mean())


def _periods_of(of_day: Any, horizon_min: int, share: float) -> Iterator[tuple[float, float, int]]:
    """Of one day, each holding period: return at the forecast's price, a minute later, and number of positions."""
    price = _grid(of_day, "last_price")
    known = price.ffill().to_numpy()  # what a position is worth while no bar comes
    forecast = _grid(of_day[of_day["horizon_min"] == horizon_min], "predicted_return").reindex_like(price).to_numpy()
    price = price.to_numpy()
    for minute in range(0, len(price) - horizon_min - 1, horizon_min):
        side = choose(forecast[minute], share) * ~np.isnan(price[minute + 1])  # without a trade nobody sells to us
        held = np.flatnonzero(side)
        if len(held):
            early, late = (
                (side[held] * (known[at + horizon_min, held] / price[at, held] - 1)).mean()
                for at in (minute, minute + 1)
            )
            yield early, late, len(held)


def choose(forecast: FloatArray, share: float) -> FloatArray:
    """+1 for what to buy, -1 for what to sell, 0 for the rest. forecast: (tickers,), NaN for who has none."""
    side = np.zeros(len(forecast))
    order = np.argsort(forecast)[: np.count_nonzero(~np.isnan(forecast))]  # NaN comes last
    count = max(1, int(share * len(order)))
    if len(order) >= 2 * count:
        side[order[:count]], side[order[-count:]] = -1, 1
    return side


def _grid(rows: Any, column: str) -> Any:
    """Minutes x tickers."""
    grid = rows.drop_duplicates(["as_of", "ticker"]).pivot(index="as_of", columns="ticker", values=column)
    return grid.asfreq("min")


def interval(values: FloatArray, day: npt.NDArray[np.int64], seed: int = 0) -> tuple[float, float]:
    """Of the mean, 95 %: by drawing days again, or from the standard error where there are too few of them."""
    days = np.unique(day)
    if len(days) < ENOUGH_DAYS:
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.inf
        return values.mean() - 1.96 * error, values.mean() + 1.96 * error
    drawn = np.random.default_rng(seed).multinomial(len(days), np.full(len(days), 1 / len(days)), DRAWS)
    sums, counts = np.bincount(day, values), np.bincount(day)
    low, high = np.quantile(drawn @ sums[days] / (drawn @ counts[days]), (0.025, 0.975))
    return float(low), float(high)


def coins(values: FloatArray, seed: int = 0) -> FloatArray:
    """Means (DRAWS,) that random signs would have earned, one sign for each period: its positions stay together."""
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(DRAWS, len(values)))
    means: FloatArray = signs @ values / len(values)
    return means


def verdict(periods: Periods) -> str:
    """What may be said of it, in a sentence."""
    gross, net_low = periods.gross_bp.mean(), interval(periods.net_bp, periods.day)[0]
    as_good = float(np.mean(coins(periods.gross_bp) >= gross))
    if as_good > 0.05:
        return f"Nothing here is significant: before costs {as_good:.0%} of coins earn as much. Do not trade on it."
    if net_low <= 0:
        return (
            f"Better than a coin before costs ({as_good:.1%} of coins earn as much), but not better than not to trade:"
            f" it would break even at {gross / 2:.2f} bp for each purchase and sale."
        )
    return (
        "After costs it earns more than nothing in this sample, and would with up to"
        f" {gross / 2:.2f} bp for each purchase and sale. The simulated market is made so; on real prices look for the"
        " mistake first."
    )


def report(periods: Periods, *, horizon_min: int, cost_bp: float) -> str:
    """The backtest in lines, for people."""
    days = len(np.unique(periods.day))
    lines = [
        f"{len(periods.gross_bp)} holding periods of {horizon_min} min on {days} day{'s' * (days > 1)},"
        f" {periods.positions:.1f} positions each; basis points of a position in a period:"
    ]
    for name, values in (
        ("at the forecast's own price, which nobody gets", periods.at_forecast_bp),
        ("a minute later", periods.gross_bp),
        (f"and after {cost_bp:g} bp for each purchase and sale", periods.net_bp),
    ):
        low, high = interval(values, periods.day)
        lines.append(f"  {name:<47} {values.mean():+7.2f}   95 %: {low:+.2f} to {high:+.2f}")
    low, high = np.quantile(coins(periods.gross_bp), (0.025, 0.975))
    lines += [
        f"  {'not to trade':<47} {0:+7.2f}",
        f"  {'a coin for each period, a minute later':<47} {0:+7.2f}   95 %: {low:+.2f} to {high:+.2f}",
        verdict(periods),
    ]
    if days < ENOUGH_DAYS:
        lines.append(
            f"The intervals take periods as independent; with {days} of {ENOUGH_DAYS} days they are too narrow."
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> str:
    """Read predictions, trade them, and say what came of it."""
    parser = argparse.ArgumentParser(description="Long/short backtest of stored predictions, with costs.")
    parser.add_argument("--bucket", help="of predictions, or a run's folder; by default STOCKFLOW_PREDICTIONS_BUCKET")
    parser.add_argument("--start", help="session or instant; by default the last session")
    parser.add_argument("--end", help="session or instant; by default the last session")
    parser.add_argument("--horizon", type=int, help="minutes; by default the longest there is")
    parser.add_argument("--cost-bp", type=float, default=2.0, help="of each purchase and each sale; by default 2")
    parser.add_argument("--share", type=float, default=0.2, help="of the tickers on either side; by default 0.2")
    options = parser.parse_args(arguments)
    last = max(consumer.sessions(bucket=options.bucket), default=None)
    if last is None:
        raise StockflowError("there are no predictions there yet: type `make run`")
    rows = consumer.predictions(options.start or last, options.end or last, columns=COLUMNS, bucket=options.bucket)
    if rows.empty:
        raise StockflowError(f"there are no predictions of that time: the last ones are of {last}")
    horizon_min = options.horizon or int(rows["horizon_min"].max())
    try:
        periods = backtest(rows, horizon_min=horizon_min, cost_bp=options.cost_bp, share=options.share)
    except ValueError as exc:
        raise StockflowError(str(exc)) from exc
    return report(periods, horizon_min=horizon_min, cost_bp=options.cost_bp)


if __name__ == "__main__":
    try:
        print(main())
    except StockflowError as error:
        sys.exit(f"backtest: {error}")
