"""What the forecasts are worth, and what each feature adds: ``make bench-forecast``.

Trains one model for each variant on the same dataset, with the ranks and the code of a real job, and measures it on
the test days. On the simulated market the best possible forecast is known, and so is the share of it that is found.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from app import contract
from app.dataset.build import Dataset, build_dataset
from app.ingest.bars import to_table
from app.processes import find_program
from app.sessions import sessions_between
from app.settings import DatasetSettings
from app.storage import to_json
from app.tables import parquet
from app.training.launch import mpirun_command
from embedded.market.bars import Market, read_bars_file
from embedded.market.simulated import SimulatedMarket, attainable_skills, simulate

_OUT = Path("build/bench/forecast.json")
_RETURN = contract.FEATURE_RETURN


def variants() -> dict[str, tuple[str, ...]]:
    """Features by the name of their variant: the default two, one less, one more of each, and all."""
    more = [name for name in contract.FEATURES if name not in contract.DEFAULT_FEATURES]
    return {
        "default": contract.DEFAULT_FEATURES,
        "return only": (_RETURN,),
        **{f"+ {name}": (*contract.DEFAULT_FEATURES, name) for name in more},
        "all": contract.FEATURES,
    }


def main() -> None:
    """Parse the options, train the variants, print and write the table."""
    options = _options()
    settings = SimulatedMarket(tickers=options.tickers, sessions=options.sessions, seed=options.market_seed)
    market = read_bars_file(options.bars) if options.bars else simulate(settings)
    horizons = tuple(json.loads(f"[{options.horizons}]"))
    dataset = make_dataset(
        market,
        DatasetSettings(horizons_min=horizons, test_days=options.test_days, validation_days=options.validation_days),
    )
    chosen = [name for name in variants() if not options.variants or name in options.variants.split(",")]
    rows = []
    with tempfile.TemporaryDirectory(prefix="stockflow-forecast-") as folder:
        store_dataset(dataset, Path(folder))
        for name in chosen:
            for seed in range(options.seeds):
                training = {"features": variants()[name], "epochs": options.epochs, "ranks": options.ranks}
                training |= {"seed": 7 + seed, "batch": options.batch, **json.loads(options.training)}
                rows.append({"variant": name, **train(Path(folder), training)})
                print(f"{name}: test skill {rows[-1]['test']['skill']:+.4f}", file=sys.stderr, flush=True)
    oracle: dict[str, float] = {}
    if not options.bars:
        window, days = dataset.settings.window_min, dataset.days["test"]
        found = attainable_skills(settings, market, horizons, days, window)
        oracle = {str(minutes): skill for minutes, skill in found.items()}
    print("\n".join(table(rows, oracle)))
    _OUT.parent.mkdir(parents=True, exist_ok=True)
    _OUT.write_bytes(to_json({"options": vars(options), "oracle": oracle, "rows": rows}))


def table(rows: Iterable[Mapping[str, Any]], oracle: Mapping[str, float]) -> list[str]:
    """Lines of Markdown: a row for each variant and horizon."""
    lines = [
        "| features | min | skill | 95 % | of attainable | over linear | direction | rank IC | in interval | train s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for minutes, found in row["test"]["horizons"].items():
            share = f"{found['skill'] / oracle[minutes]:.0%}" if oracle else ""
            span = found["skill_interval"]
            shown = f"{span[0]:+.4f} to {span[1]:+.4f}" if span else ""
            right = "" if found["direction"] is None else f"{found['direction']:.3f}"
            ic = "" if found["rank_ic"] is None else f"{found['rank_ic']:+.3f}"
            lines.append(
                f"| {row['variant']} | {minutes} | {found['skill']:+.4f} | {shown} | {share} |"
                f" {found['over_linear']:+.4f} | {right} | {ic} | {found['coverage']:.3f} |"
                f" {row['train_s']:.0f} |"
            )
    return lines


def train(folder: Path, training: Mapping[str, Any]) -> dict[str, Any]:
    """Train on the dataset in a folder, with these settings, and measure: what `benchmarks.forecast_rank` writes."""
    result = folder / "result.json"
    command = mpirun_command(find_program("mpirun", "openmpi-bin"), int(training["ranks"]))
    started = time.perf_counter()
    subprocess.run(
        [*command, sys.executable, "-m", "benchmarks.forecast_rank", str(folder), str(result)],
        env={**os.environ, contract.ENV_SETTINGS: json.dumps({"training": training}), "TF_CPP_MIN_LOG_LEVEL": "2"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    found: dict[str, Any] = json.loads(result.read_text())
    return {**found, "wall_s": time.perf_counter() - started, "training": dict(training)}


def make_dataset(market: Market, settings: DatasetSettings) -> Dataset:
    """The dataset of a market's bars."""
    bars = to_table(market.bars)
    return build_dataset(bars, sessions_between(market.days[0], market.days[-1]), settings)


def store_dataset(dataset: Dataset, folder: Path) -> None:
    """As the dataset phase stores it, in a folder."""
    for name, split in dataset.splits.items():
        body = parquet(split, [group.rows for group in dataset.groups[name]])
        (folder / contract.dataset_key("bench", name).rpartition("/")[2]).write_bytes(body)
    (folder / contract.dataset_spec_key("bench").rpartition("/")[2]).write_bytes(to_json(dataset.report()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forecast", description=__doc__)
    parser.add_argument("--bars", type=Path, help="a Parquet file of minute bars; the simulated market without")
    parser.add_argument("--tickers", type=int, default=20)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--market-seed", type=int, default=SimulatedMarket().seed)
    parser.add_argument("--validation-days", type=int, default=3)
    parser.add_argument("--test-days", type=int, default=4)
    parser.add_argument("--horizons", default="5", help="minutes ahead, by commas")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--training", default="{}", help="further training settings as JSON")
    parser.add_argument("--variants", default="", help="names by commas; all without")
    return parser.parse_args()


if __name__ == "__main__":
    main()
