"""What was predicted beside what happened, and how good it was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from app.consumer.frames import Frame, check_frame, to_frame
from app.consumer.read import COLUMNS, read_rows
from app.consumer.selection import Instant, Period, Selection, columns_of, period, selection
from app.consumer.source import Source, open_source
from app.contract import BAR_S
from app.sessions import market_day, utc
from app.storage import Bucket

OUTCOME: Final = ("dt", "actual_price", "actual_return")
"""What is added to a prediction: its session, and what happened; null where that is not known (yet)."""
GROUPS: Final = ("dt", "ticker", "horizon_min", "model_id")
_FOR_OUTCOME = ("last_price", "produced_at")
_FOR_ACCURACY = ("last_price", "predicted_return", "predicted_price", "price_p10", "price_p90")
_BP = 1e4
_HOUR_MS = 3_600_000
_MS_BITS = 44
"""Milliseconds since 1970 until the year 2527."""


def outcomes(
    start: Instant,
    end: Instant,
    tickers: str | Iterable[str] | None = None,
    *,
    columns: str | Iterable[str] | None = None,
    horizons_min: int | Iterable[int] | None = None,
    run_id: str | None = None,
    frame: Frame = "pandas",
    bucket: Source | None = None,
) -> Any:
    """Predictions beside what happened; arguments, order and errors as of `predictions`.

    Further columns: `dt`, the New York session as text; `actual_price`, the close `horizon_min` minutes later; and
    `actual_return`, the log return until then. What happened is the last_price of the same ticker's predictions as of
    that minute of the same session, for a consumer may read nothing else: null where there are none, beyond the close,
    in a minute without a trade, or because it is yet to come.
    """
    check_frame(frame)
    wanted = columns_of(columns, (*COLUMNS, *OUTCOME))
    rows = _joined(open_source(bucket), period(start, end), selection(tickers, horizons_min, run_id), wanted)
    return to_frame(rows.select(wanted), frame)


def accuracy(
    start: Instant,
    end: Instant,
    tickers: str | Iterable[str] | None = None,
    *,
    by: str | Iterable[str] = "horizon_min",
    horizons_min: int | Iterable[int] | None = None,
    run_id: str | None = None,
    frame: Frame = "pandas",
    bucket: Source | None = None,
) -> Any:
    """How good the predictions were of which it is known what happened, in one row for each group.

    by: some of dt (New York session), ticker, horizon_min and model_id. Columns, beside those: sessions and
    predictions, how many; mae_*, rmse_*: mean absolute error and root of the mean squared one, *_usd of the price, *_bp
    of the log return in basis points, *_persistence_* of the forecast that the price stays; skill: 1 - MSE / MSE of
    persistence, of returns; direction: share of right signs among the moves that are not zero; coverage: share of
    prices within p10..p90, which is to be 0.8; width_bp: mean of p90 - p10. Null is what cannot be told. The terms are
    those of app.training.evaluate, other arguments and errors those of `predictions`.
    """
    check_frame(frame)
    groups = columns_of(by, GROUPS)
    wanted = [*groups, *_FOR_ACCURACY, *OUTCOME]
    rows = _joined(open_source(bucket), period(start, end), selection(tickers, horizons_min, run_id), wanted)
    return to_frame(_summed(_measured(rows.filter(pc.is_valid(rows["actual_price"])), groups), groups), frame)


def _joined(source: Bucket, when: Period, which: Selection, columns: Sequence[str]) -> pa.Table:
    """The columns of the predictions meant, and OUTCOME.

    Whole sessions and all horizons are read: what happened after the period's end is told by later predictions.
    """
    stored = [name for name in columns if name not in OUTCOME]
    rows = read_rows(source, when.sessions, Selection(which.tickers, None, which.run_id), [*stored, *_FOR_OUTCOME])
    price = _happened(rows)
    actual_return = np.log(price / rows["last_price"].to_numpy())
    rows = rows.append_column("dt", _days(rows))
    for name, values in (("actual_price", price), ("actual_return", actual_return)):
        rows = rows.append_column(name, pa.array(values, pa.float64(), mask=np.isnan(price)))
    return when.rows(which.rows(rows))


def _days(rows: pa.Table) -> pa.Array:
    """The New York date of each as_of: its hours are those of UTC."""
    hours, of = np.unique(rows["as_of"].cast(pa.int64()).to_numpy() // _HOUR_MS, return_inverse=True)
    days = [market_day(utc(int(hour) * _HOUR_MS // 1000)).isoformat() for hour in hours]
    return pa.array(days, pa.string()).take(pa.array(of, pa.int64()))


def _happened(rows: pa.Table) -> npt.NDArray[np.float64]:
    """The last_price that the predictions of the ticker tell, float64 (n,), `horizon_min` after each; NaN for none.

    A minute has one price, that of the row that was produced last: a bar may be revised between two runs. That the
    session is the same follows: no horizon reaches over a night.
    """
    ticker = rows["ticker"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64) << _MS_BITS
    as_of_ms, produced = (rows[name].cast(pa.int64()).to_numpy() for name in ("as_of", "produced_at"))
    minute = ticker + as_of_ms
    order = np.lexsort((produced, minute))
    last = order[np.append(np.diff(minute[order]) != 0, True)] if len(order) else order
    due = minute + rows["horizon_min"].to_numpy().astype(np.int64) * (BAR_S * 1000)
    at = np.minimum(np.searchsorted(minute[last], due), max(len(last) - 1, 0))
    known = rows["last_price"].to_numpy()[last]
    return np.where(minute[last][at] == due, known[at], np.nan) if len(last) else known


def _measured(rows: pa.Table, groups: Sequence[str]) -> pa.Table:
    """For each prediction with a known outcome what `_summed` takes means of."""
    last, actual_price, actual = (rows[name].to_numpy() for name in ("last_price", "actual_price", "actual_return"))
    predicted, predicted_price = rows["predicted_return"].to_numpy(), rows["predicted_price"].to_numpy()
    moved = actual != 0
    low, high = rows["price_p10"], rows["price_p90"]
    within = pc.and_(pc.less_equal(low, rows["actual_price"]), pc.less_equal(rows["actual_price"], high))
    columns = {
        "error_usd": predicted_price - actual_price,
        "error_persistence_usd": last - actual_price,
        "error_bp": (predicted - actual) * _BP,
        "error_persistence_bp": actual * _BP,
        "direction": pa.array((np.sign(predicted) == np.sign(actual)).astype(np.float64), mask=~moved),
        "coverage": within.cast(pa.float64()),
        "width_bp": pc.multiply(pc.ln(pc.divide(high, low)), _BP),
    }
    for name in [name for name in columns if name.startswith("error")]:
        error = columns.pop(name)
        columns |= {name.replace("error", "mae"): np.abs(error), name.replace("error", "mse"): np.square(error)}
    return pa.table({**{name: rows[name] for name in groups}, "session": rows["dt"], **columns})


def _summed(rows: pa.Table, groups: Sequence[str]) -> pa.Table:
    """The means of each group."""
    measured = [name for name in rows.column_names if name not in (*groups, "session")]
    told = rows.group_by(list(groups), use_threads=False).aggregate(
        [("session", "count_distinct"), ([], "count_all"), *((name, "mean") for name in measured)]
    )
    mean = {name: told[f"{name}_mean"] for name in measured}
    columns: dict[str, Any] = {name: told[name] for name in groups}
    columns |= {"sessions": told["session_count_distinct"], "predictions": told["count_all"]}
    for unit in ("usd", "bp"):
        for whose in ("", "persistence_"):
            columns[f"mae_{whose}{unit}"] = mean[f"mae_{whose}{unit}"]
        for whose in ("", "persistence_"):
            columns[f"rmse_{whose}{unit}"] = pc.sqrt(mean[f"mse_{whose}{unit}"])
    persistence = mean["mse_persistence_bp"]
    persistence = pc.if_else(pc.greater(persistence, 0), persistence, None)
    columns["skill"] = pc.subtract(1.0, pc.divide(mean["mse_bp"], persistence))
    columns |= {name: mean[name] for name in ("direction", "coverage", "width_bp")}
    table = pa.table(columns)
    table = table.filter(pc.greater(table["predictions"], 0))  # without groups there is a row of nothing too
    return table.sort_by([(name, "ascending") for name in groups]) if groups else table
