"""A stream over several sessions, fed as fast as it predicts: what test_soak.py starts.

``python -m tests.pipeline.soak_stream FOLDER TICKERS MINUTES``: prints JSON for each micro-batch: its number, memory of
this process, Java and the workers, bytes of the checkpoint and the number of prediction objects.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil

from app import contract
from app.clock import system_clock
from app.serving.checkpoint import CheckpointFolder
from app.serving.score_bucket import StreamPlace
from app.serving.sink import BatchSummary, PredictionSink
from app.serving.sources import Begin, make_source
from app.serving.stream import Watch, run_stream, start_spark
from app.settings import ServingSettings
from app.storage import Bucket
from app.tables import put_table
from benchmarks.serving_market import minute_bars, names
from tests.fakes import make_sessions

MODEL_ID, RUN_ID, A_BATCH, SESSION_MINUTES = "soak", "soak", 4, 390


class Soak:
    """Feeds the minutes of the next micro-batch when one is done, and tells how large everything is."""

    def __init__(self, folder: Path, tickers: int, minutes: int) -> None:
        self.sessions = make_sessions(*[SESSION_MINUTES] * -(-minutes // SESSION_MINUTES))
        self._folder, self._tickers, self._minutes = folder, names(tickers), minutes
        self._market, self._predictions = Bucket("market"), Bucket("predictions")
        self._fed = 0

    def feed(self) -> None:
        """The minutes of a micro-batch; after the last ones the end."""
        key = ""
        for number in range(self._fed, min(self._fed + A_BATCH, self._minutes)):
            session, minute = self.sessions[number // SESSION_MINUTES], number % SESSION_MINUTES
            key = contract.ticks_key(RUN_ID, session.day, (session.open_ts + 60 * minute) * 1000, number)
            put_table(self._market, key, minute_bars(self._tickers, session, [minute]))
        self._fed += A_BATCH
        if self._fed >= self._minutes and key:
            self._market.put_json(contract.feed_end_key(RUN_ID), {"last_key": key})

    def tell(self, summary: BatchSummary) -> None:
        """For PredictionSink."""
        me = psutil.Process()
        told = {
            "micro_batch": summary.micro_batch,
            "rss_mib": sum(one.memory_info().rss for one in (me, *me.children(recursive=True))) / 2**20,
            "checkpoint_bytes": sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file()),
            "objects": len(self._predictions.keys(contract.PREDICTIONS_PREFIX)),
            "predictions": summary.predictions,
        }
        print(json.dumps(told), flush=True)
        self.feed()


def main(folder: str, tickers: int, minutes: int) -> None:
    settings = ServingSettings(micro_batch_limit=A_BATCH, poll_s=0.2)
    soak = Soak(Path(folder), tickers, minutes)
    sink = PredictionSink(Bucket("predictions"), RUN_ID, system_clock, settings.object_rows, soak.tell)
    spark = start_spark(settings)
    checkpoint = CheckpointFolder(spark, f"file://{folder}")
    known = frozenset(names(tickers)), soak.sessions, soak.sessions[0].open_ts
    place = StreamPlace(RUN_ID, "market", "models", *known, settings.watermark_min)
    source = make_source(Begin(RUN_ID, "models", MODEL_ID, ""), settings, Bucket("market"))
    soak.feed()
    run_stream(spark, place, settings, source, sink, checkpoint, Watch())
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
