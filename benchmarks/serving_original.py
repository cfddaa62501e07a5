"""The original's way to predict, written anew from its description: one Keras call for each ticker, on the driver.

``python -m benchmarks.serving_original``: the first line of standard input asks for the model, which both arms use;
each further one, JSON of a Block, for some minutes of so many tickers. What it leaves out is Spark, which collected the
ticks for it and took its own time.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import pyarrow as pa

from app import contract
from app.dataset.spec import Spec, TickerScale
from app.settings import TrainingSettings
from app.storage import Bucket
from app.tables import get_table, put_table
from app.training.export import export_model
from app.training.model import build_model
from benchmarks.serving_market import HORIZONS_MIN, WINDOW_MIN, minute_bars, names, sessions
from benchmarks.serving_stream import MODEL_ID, Block


def main() -> None:
    """Make the model, then serve blocks until standard input ends."""
    model = build_model(WINDOW_MIN, len(contract.DEFAULT_FEATURES), len(HORIZONS_MIN), TrainingSettings())
    sys.stdin.readline()
    store(model)
    print(json.dumps({"model": MODEL_ID}), flush=True)
    for line in sys.stdin:
        block = Block(**json.loads(line))
        print(json.dumps({"micro_batch_s": predict(model, block)}), flush=True)


def store(model: Any) -> None:
    """Leave the model where serving finds it. It has learned nothing: that takes as long."""
    features = len(contract.DEFAULT_FEATURES)
    scale = TickerScale((0.0,) * features, (1.0,) * features, (1e-3,) * len(HORIZONS_MIN))
    profile = (0.0,) * contract.SESSION_MINUTES
    spec = Spec(WINDOW_MIN, HORIZONS_MIN, contract.DEFAULT_FEATURES, {}, scale, profile, "bench")
    sample = np.random.default_rng(1).standard_normal((16, WINDOW_MIN, features)).astype(np.float32)
    _, onnx = export_model(model, sample)
    models = Bucket("models")
    models.put(contract.model_key(MODEL_ID, contract.MODEL_ONNX), onnx)
    models.put_json(contract.model_key(MODEL_ID, contract.MODEL_SPEC), spec.to_json())
    models.put_json(contract.CURRENT_MODEL_KEY, {"model_id": MODEL_ID})


def predict(model: Any, block: Block) -> list[float]:
    """Seconds of each minute: from having its tick object until its predictions are stored."""
    market, predictions = Bucket("market"), Bucket("predictions")
    tickers, (_, day) = names(block.tickers), sessions()
    windows = {ticker: np.zeros((WINDOW_MIN, len(contract.DEFAULT_FEATURES)), np.float32) for ticker in tickers}
    taken = []
    for minute in range(block.first, block.first + block.minutes):
        key = f"original/{block.run_id}/{minute}.parquet"
        put_table(market, key, minute_bars(tickers, day, [minute]))
        began = time.perf_counter()
        ticks = get_table(market, key).to_pandas()
        rows = []
        for tick in ticks.itertuples():
            window = np.vstack([windows[tick.ticker][1:], [[np.log(tick.close / tick.open), np.log1p(tick.volume)]]])
            windows[tick.ticker] = window
            rows.append(model.predict(window[None], verbose=0)[0, 0, 0])
        put_table(predictions, key, pa.table({"ticker": tickers, "predicted": rows}))
        taken.append(time.perf_counter() - began)
    return taken


if __name__ == "__main__":
    main()
