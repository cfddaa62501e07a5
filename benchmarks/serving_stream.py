"""Our arm of the serving benchmark: one process that streams some minutes of so many tickers whenever it is told to.

``python -m benchmarks.serving_stream``: each line of standard input is JSON of a Block, each answer a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any, Final

import numpy as np
import psutil
from pyspark.sql import SparkSession

from app import contract
from app.clock import system_clock
from app.serving.checkpoint import CheckpointFolder
from app.serving.score_bucket import StreamPlace
from app.serving.scoring import read_spec
from app.serving.sink import BatchSummary, PredictionSink
from app.serving.sources import Begin, make_source
from app.serving.stream import start_query, start_spark
from app.serving.warm import write_warm_state
from app.settings import ServingSettings
from app.storage import Bucket
from app.tables import put_table
from benchmarks.serving_market import WARM_MINUTES, minute_bars, names, sessions

MODEL_ID: Final = "bench"
_WAIT_S: Final = 300.0
_PAUSE_S: Final = 0.2
"""At most, between a prediction and the next tick: so that ticks do not come in step with the source's polls."""


@dataclass(frozen=True)
class Block:
    """Minutes `first` to `first` + `minutes` of so many tickers; the run goes on where it was. settings: of serving."""

    run_id: str
    tickers: int
    first: int
    minutes: int
    folder: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Timed:
    """One micro-batch. end_to_end_s: from the beginning of the tick object's PUT until all predictions are stored."""

    micro_batch_s: float
    scoring_s: float
    end_to_end_s: float
    predictions: int


def main() -> None:
    """Serve blocks until standard input ends. The first answer's `first_s` counts from here, Java's start included."""
    begun = time.perf_counter()
    spark: SparkSession | None = None
    for line in sys.stdin:
        block = Block(**json.loads(line))
        settings = ServingSettings.model_validate(block.settings)
        spark = spark or start_spark(settings)
        timed, first_s = stream(spark, block, settings)
        answer = {"timed": [asdict(one) for one in timed], "first_s": first_s - begun, "rss_mib": _rss_mib()}
        print(json.dumps(answer), flush=True)


def stream(spark: SparkSession, block: Block, settings: ServingSettings) -> tuple[list[Timed], float]:
    """Feed the minutes one by one, each when the one before is predicted; also when the first one was."""
    market, models, predictions = (Bucket(name) for name in ("market", "models", "predictions"))
    tickers, (before, day) = names(block.tickers), sessions()
    if block.first == 0:
        warm = minute_bars(tickers, before, range(before.minutes - WARM_MINUTES, before.minutes))
        put_table(market, contract.bars_key(before.day, block.run_id), warm)
        spec = read_spec(models, MODEL_ID)
        write_warm_state(block.run_id, market, (before, day), day, tickers, spec, settings.watermark_min)
    done: Queue[tuple[float, BatchSummary]] = Queue()

    def on_batch(summary: BatchSummary) -> None:
        done.put((time.perf_counter(), summary))

    sink = PredictionSink(predictions, block.run_id, system_clock, settings.object_rows, on_batch)
    checkpoint = CheckpointFolder(spark, f"file://{Path(block.folder, block.run_id)}")
    known = frozenset(tickers), (before, day), day.open_ts
    place = StreamPlace(block.run_id, market.name, models.name, *known, settings.watermark_min)
    source = make_source(Begin(block.run_id, models.name, MODEL_ID, checkpoint.planned()), settings, market)
    spark.conf.set("spark.sql.streaming.numRecentProgressUpdates", 2 * block.minutes)  # idle ones come between
    query = start_query(spark, place, settings, source, sink, checkpoint)
    stored, first_s = [], 0.0
    pause = np.random.default_rng(block.first)
    try:
        for minute in range(block.first, block.first + block.minutes):
            bars = minute_bars(tickers, day, [minute])
            time.sleep(pause.uniform(0, _PAUSE_S))
            began = time.perf_counter()
            key = contract.ticks_key(block.run_id, day.day, (day.open_ts + 60 * minute) * 1000, minute)
            put_table(market, key, bars)
            ended, summary = done.get(timeout=_WAIT_S)
            first_s = first_s or ended
            stored.append((ended - began, summary))
        while not query.lastProgress or query.lastProgress.batchId < stored[-1][1].micro_batch:
            time.sleep(0.01)
        progress = [one for one in query.recentProgress if one.numInputRows]
        took = {one.batchId: one.durationMs["triggerExecution"] / 1000 for one in progress}
    finally:
        query.stop()
    timed = [Timed(took[one.micro_batch], one.scoring_s, seconds, one.predictions) for seconds, one in stored]
    return timed, first_s


def _rss_mib() -> float:
    """Memory of this process, Java and the workers; pages that they share count for each."""
    me = psutil.Process()
    rss = sum(int(one.memory_info().rss) for one in (me, *me.children(recursive=True)))
    return round(rss / 2**20, 1)


if __name__ == "__main__":
    main()
