"""Predictions beside what happened: by ticker, over time, and over the whole market."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from app import contract
from app.tables import arrow_schema

COLUMNS: Final = tuple(
    column.name for column in contract.PREDICTIONS if column.name not in {"price_p50", "carried_minutes"}
)
"""What is read of a prediction."""
BP: Final = 1e4
ROLLING_MIN: Final = 30
"""Minutes over which an error is averaged, to be seen over time."""
_MS_OF_MINUTE: Final = 60_000


@dataclass(frozen=True)
class Accuracy:
    """How the predictions of one horizon came out, of those whose minute has been seen.

    mae_bp: mean absolute error of the log return in basis points; mae_still_bp: that of "the price stays"; skill:
    1 - MSE / MSE of "the price stays", as the gate measures it; within: share of prices from p10 to p90; direction:
    share of right signs among the moves that are not zero. None is what cannot be told.
    """

    horizon_min: int
    predictions: int
    known: int
    mae_bp: float | None
    mae_still_bp: float | None
    skill: float | None
    within: float | None
    direction: float | None


def join_outcomes(tables: Sequence[pa.Table]) -> pd.DataFrame:
    """All predictions (contract.PREDICTIONS, those of COLUMNS) with what happened, by ticker, horizon and time.

    Adds `target`, the minute that a prediction is about: as_of + horizon; `actual`, the price of that minute, which
    another prediction of the ticker was made at, NaN where there is none; `error_bp` and `still_bp`, the errors of the
    prediction and of "the price stays"; `within`, whether the price lies from p10 to p90, and `right`, whether it moved
    as predicted, NaN where it did not move.
    """
    whole = pa.concat_tables([arrow_schema(contract.PREDICTIONS).empty_table().select(COLUMNS), *tables])
    frame = pd.DataFrame({name: whole[name].to_numpy() for name in COLUMNS if name not in {"ticker", "model_id"}})
    for name in ("ticker", "model_id"):
        frame[name] = whole[name].combine_chunks().dictionary_encode().to_pandas()
    frame["target"] = frame["as_of"] + pd.to_timedelta(frame["horizon_min"], unit="min")
    frame["actual"] = _prices_at(frame)
    moved = np.log(frame["actual"] / frame["last_price"])
    frame["error_bp"] = (moved - frame["predicted_return"]).abs() * BP
    frame["still_bp"] = moved.abs() * BP
    right = np.sign(moved) == np.sign(frame["predicted_return"])
    frame["right"] = np.where(moved.isna() | (moved == 0), np.nan, right)
    inside = frame["actual"].between(frame["price_p10"], frame["price_p90"])
    frame["within"] = np.where(moved.isna(), np.nan, inside)
    return frame.sort_values(["ticker", "horizon_min", "as_of"], ignore_index=True)


def horizons(frame: pd.DataFrame) -> list[int]:
    """The horizons of the predictions, ascending."""
    return sorted(int(minutes) for minutes in frame["horizon_min"].unique())


def tickers(frame: pd.DataFrame) -> list[str]:
    """The tickers that were predicted, sorted."""
    return sorted(str(ticker) for ticker in frame["ticker"].unique())


def of_ticker(frame: pd.DataFrame, ticker: str, horizon_min: int) -> pd.DataFrame:
    """One ticker's predictions of one horizon, ascending in time."""
    return frame[(frame["ticker"] == ticker) & (frame["horizon_min"] == horizon_min)]


def newest_of(frame: pd.DataFrame, ticker: str) -> pd.DataFrame:
    """The predictions of a ticker's newest window, by horizon."""
    mine = frame[frame["ticker"] == ticker]
    return mine[mine["as_of"] == mine["as_of"].max()].sort_values("horizon_min")


def newest_moves(frame: pd.DataFrame, horizon_min: int) -> pd.DataFrame:
    """What each ticker's newest window predicts of one horizon: `ticker`, `as_of`, `move_bp`, by ticker."""
    mine = frame[frame["horizon_min"] == horizon_min].drop_duplicates("ticker", keep="last")
    moves = pd.DataFrame({"ticker": mine["ticker"].astype(str), "as_of": mine["as_of"]})
    moves["move_bp"] = mine["predicted_return"] * BP
    return moves.sort_values("ticker", ignore_index=True)


def accuracy(frame: pd.DataFrame) -> list[Accuracy]:
    """How the predictions came out, by horizon."""
    return [_accuracy(minutes, frame[frame["horizon_min"] == minutes]) for minutes in horizons(frame)]


def rolling_errors(frame: pd.DataFrame, horizon_min: int, window_min: int = ROLLING_MIN) -> pd.DataFrame:
    """Mean absolute errors in bp over the last `window_min` minutes: `target`, `error_bp`, `still_bp`, `known`.

    All tickers' predictions of one horizon whose minute has been seen, each counted once; a row for each minute.
    """
    known = frame[(frame["horizon_min"] == horizon_min) & frame["actual"].notna()]
    by_minute = known.groupby("target")[["error_bp", "still_bp"]].agg("sum")
    by_minute["known"] = known.groupby("target").size()
    summed = by_minute.sort_index().rolling(f"{window_min}min").sum()
    means = summed[["error_bp", "still_bp"]].div(summed["known"], axis=0)
    return means.assign(known=by_minute["known"]).reset_index()


def _accuracy(minutes: int, frame: pd.DataFrame) -> Accuracy:
    known = frame[frame["actual"].notna()]
    squared, still = (float(np.square(known[name]).sum()) for name in ("error_bp", "still_bp"))
    return Accuracy(
        minutes,
        len(frame),
        len(known),
        _mean(known["error_bp"]),
        _mean(known["still_bp"]),
        1 - squared / still if still else None,
        _mean(known["within"]),
        _mean(known["right"].dropna()),
    )


def _mean(values: Any) -> float | None:
    return float(values.mean()) if len(values) else None


def _prices_at(frame: pd.DataFrame) -> Any:
    """The last price of the ticker's own prediction as of each row's target, NaN where it made none: float64 (n,)."""
    codes = frame["ticker"].cat.codes.to_numpy().astype(np.int64)
    as_of, target = (_minutes(frame[name]) for name in ("as_of", "target"))
    if not len(frame):
        return np.empty(0)
    span = max(as_of.max(), target.max()) + 1
    seen, first = np.unique(codes * span + as_of, return_index=True)
    wanted = codes * span + target
    place = np.minimum(np.searchsorted(seen, wanted), len(seen) - 1)
    prices = frame["last_price"].to_numpy()[first[place]]
    return np.where(seen[place] == wanted, prices, np.nan)


def _minutes(times: Any) -> Any:
    """Times as whole minutes since the epoch."""
    return times.to_numpy().astype("datetime64[ms]").astype(np.int64) // _MS_OF_MINUTE
