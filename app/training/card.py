"""A model's card: what it is, what it was trained on, how good it is on days that it never saw, what it is not for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]

_FEW_DAYS = 6
"""With fewer, even the same sign on every day would be no rare chance: 2 / 2 ** days is more than 1 in 20."""


def model_card(model_id: str, spec: Json, settings: Json, metrics: Json, days: Mapping[str, Sequence[str]]) -> str:
    """The card as Markdown; the same arguments always give the same text.

    spec: as beside the model; settings, metrics: as stored, metrics with `validation`, `test` and `linear`; days: New
    York dates of each split.
    """
    test, horizons = metrics["test"], metrics["test"]["horizons"]
    sections = [
        f"# Model {model_id}",
        _opening(spec, test),
        "## What it is",
        _table(("", ""), _what(spec, settings)),
        "## What it was trained on",
        _table(("", "days", "windows"), _splits(metrics, days)),
        _training(spec, settings, metrics),
        "## How good it is",
        _reading(test["days"]),
        _table(
            ("minutes ahead", "skill", "better than linear by", "right direction", "rank IC"),
            (_skills(minutes, of) for minutes, of in horizons.items()),
        ),
        "Errors of the model, of the forecast that the price stays, and of the linear model:",
        _table(
            ("minutes ahead", "MAE, USD", "RMSE, USD", "MAE, bp", "RMSE, bp"),
            (_errors(minutes, of, metrics["linear"]["test"]["horizons"][minutes]) for minutes, of in horizons.items()),
        ),
        "Its interval from p10 to p90 is meant to hold 80 % of the returns:",
        _table(
            ("minutes ahead", "held", "mean width, bp", "below p10, p50, p90"),
            (_interval(minutes, of) for minutes, of in horizons.items()),
        ),
        "## What it is not for",
        _NOT_FOR,
    ]
    return "\n\n".join(sections) + "\n"


_NOT_FOR = """\
- It is no advice to trade. No cost is counted: no spread, no fee, no slippage, no tax; each is of the size of the
  returns that it forecasts, or larger.
- It speaks of closes of 1-minute bars, at which nobody may have been able to trade, in regular sessions, and never
  beyond a session's end.
- It says nothing of other days than those above: markets change. Nor has it been checked on tickers that training
  never saw; it scales these as the average of the others."""


def _opening(spec: Json, test: Json) -> str:
    named = [
        f"{minutes} minutes ahead {_verdict(of['skill'], of['significant'])}"
        for minutes, of in test["horizons"].items()
    ]
    return (
        f"Forecasts the log return of a stock {_listed(spec['horizons_min'])} minutes ahead from its last"
        f" {spec['window_min']} 1-minute bars, with an interval. Against the forecast that the price stays, on"
        f" {_count(test['days'], 'day')} that nothing was fitted to: {'; '.join(named)}."
    )


def _what(spec: Json, settings: Json) -> Iterable[tuple[str, str]]:
    training = settings["training"]
    steps = training.get("resolution_min", 1)
    yield "features of a minute", ", ".join(f"`{name}`" for name in spec["features"])
    yield "looks back", f"{spec['window_min']} minutes" + (f", in means of {steps}" if steps > 1 else "")
    yield "looks ahead", f"{_listed(spec['horizons_min'])} minutes"
    yield (
        "network",
        f"LSTM {training['lstm_units']}, dropout {training['dropout']:g}, dense {training['dense_units']} (ReLU),"
        " mean and quantiles 10, 50, 90 of each horizon",
    )
    yield "scaled", "by ticker, with figures of its training days"
    yield "data", f"`{spec['fingerprint'][:16]}`"


def _splits(metrics: Json, days: Mapping[str, Sequence[str]]) -> Iterable[tuple[str, ...]]:
    windows = {"train": metrics["windows_train"]} | {name: metrics[name]["windows"] for name in ("validation", "test")}
    for name, count in windows.items():
        held = days[name]
        span = f": {held[0]} to {held[-1]}" if len(held) > 1 else f": {held[0]}" if held else ""
        yield name, f"{len(held)}{span}", f"{count:,}"


def _training(spec: Json, settings: Json, metrics: Json) -> str:
    training = settings["training"]
    return (
        f"{_count(len(spec['scales']), 'ticker')}; {_count(metrics['ranks'], 'rank')} with batches of"
        f" {metrics['batch']:,}; epoch {metrics['best_epoch']} of {training['epochs']} was the best on the validation"
        " days, on which the quantiles were calibrated and the linear model's ridge was chosen too. The test days"
        " decided nothing."
    )


def _reading(days: int) -> str:
    lines = [
        "Measured on the test days; in brackets 95 % intervals, by drawing whole days again. Skill is 1 - MSE / MSE of"
        " the forecast that the price stays, of log returns: 0 is no better, negative is worse. The linear model is a"
        " ridge regression on the same windows. Rank IC is Spearman's correlation over the tickers of a minute."
        " **Not significant** is what cannot be told from a forecast that knows nothing (skill 0, direction 50 %, rank"
        " IC 0)."
    ]
    if days < 2:
        lines.append("**One day gives no interval: nothing below is significant.**")
    elif days < _FEW_DAYS:
        lines.append(
            f"**{days} days are few:** an interval from so few resamples is coarse. It is widened for that, but more"
            " test days (`dataset.test_days`) say more."
        )
    return "\n\n".join(lines)


def _skills(minutes: str, of: Json) -> tuple[str, ...]:
    return (
        minutes,
        _estimate(of["skill"], of["skill_interval"], of["significant"]),
        _estimate(of["over_linear"], of["over_linear_interval"], of["over_linear_significant"]),
        _estimate(of["direction"], of["direction_interval"], of["direction_significant"], percent=True),
        _estimate(of["rank_ic"], of["rank_ic_interval"], of["rank_ic_significant"]),
    )


def _errors(minutes: str, of: Json, linear: Json) -> tuple[str, ...]:
    return (
        minutes,
        *(
            " / ".join(
                f"{value:.{digits}f}"
                for value in (of[f"{kind}_{unit}"], of[f"{kind}_persistence_{unit}"], linear[f"{kind}_{unit}"])
            )
            for unit, digits in (("usd", 4), ("bp", 2))
            for kind in ("mae", "rmse")
        ),
    )


def _interval(minutes: str, of: Json) -> tuple[str, ...]:
    if of["coverage"] is None:
        return minutes, "-", "-", "-"
    below = ", ".join(f"{100 * share:.1f} %" for share in of["below"].values())
    return minutes, f"{100 * of['coverage']:.1f} %", f"{of['width_bp']:.2f}", below


def _estimate(
    value: float | None, interval: Sequence[float] | None, significant: bool | None, *, percent: bool = False
) -> str:
    if value is None:
        return "-"
    scale, form, unit = (100, ".1f", " %") if percent else (1, "+.4f", "")
    bounds = f" [{scale * interval[0]:{form}}, {scale * interval[1]:{form}}]" if interval else ""
    return f"{scale * value:{form}}{unit}{bounds}{'' if significant else ', not significant'}"


def _verdict(skill: float, significant: bool | None) -> str:
    if not significant:
        return f"no significant difference ({skill:+.4f}, not significant)"
    return f"{'better' if skill > 0 else 'worse'} ({skill:+.4f})"


def _listed(values: Sequence[int]) -> str:
    *first, last = map(str, values)
    return f"{', '.join(first)} and {last}" if first else last


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
