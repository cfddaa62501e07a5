"""The original's ingest, written anew from the description of what its code did: the arms to compare with.

It had one `yf.download` a ticker, or one for a list of tickers in each process of a pool, and then cut windows of
minutes into sequences with one `np.concatenate` for each window.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yfinance as yf
from curl_cffi import requests

WINDOW_MIN = 60
TARGET_AT = WINDOW_MIN + 5
"""Where the target lies from a window's first bar: six minutes after its last one, not the five that were meant."""

_COLUMNS = ["Open", "High", "Low", "Close", "Volume"]

Requests = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Ingested:
    """What a worker got: when its last download had ended (monotonic clock), sequences, and its bars by ticker."""

    downloaded_s: float
    sequences: int
    rows: dict[str, int]


class LocalSession(requests.Session[requests.Response]):
    """Sends yfinance's requests to the embedded Yahoo as to a proxy: hosts, and so cookies, stay Yahoo's."""

    def __init__(self, url: str) -> None:
        super().__init__(impersonate="chrome", proxies={"http": url})

    def request(self, method: Any, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        """As curl_cffi's, in plain HTTP, which a proxy can answer."""
        return super().request(method, url.replace("https://", "http://", 1), *args, **kwargs)


def make_sequences(bars: pd.DataFrame) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Windows (n, 60, 2) of close and volume and their targets (n,), never across days, as the original cut them.

    Each window is a copy of all those before it: the work grows with the square of their number.
    """
    windows, targets = np.empty((0, WINDOW_MIN, 2)), np.empty(0)
    for _, day in bars.groupby(bars.index.date):
        values = day[["Close", "Volume"]].to_numpy("float64")
        for first in range(len(values) - TARGET_AT):
            windows = np.concatenate([windows, values[np.newaxis, first : first + WINDOW_MIN]])
            targets = np.concatenate([targets, values[first + TARGET_AT, :1]])
    return windows, targets


def ingest_naively(url: str, tickers: Sequence[str], spans: Requests) -> tuple[float, int, dict[str, pd.DataFrame]]:
    """One ticker after another: its downloads, then its sequences.

    Returns the seconds of all downloads, the number of sequences, and the bars by ticker.
    """
    session = LocalSession(url)
    download_s, sequences = 0.0, 0
    bars: dict[str, pd.DataFrame] = {}
    for ticker in tickers:
        begun_s = time.monotonic()
        frames = [_download(ticker, span, session, threads=False, multi_level_index=False) for span in spans]
        download_s += time.monotonic() - begun_s
        sequences += sum(len(make_sequences(frame)[1]) for frame in frames)
        bars[ticker] = pd.concat(frames)[_COLUMNS]
    return download_s, sequences, bars


def ingest_in_pool(url: str, tickers: Sequence[str], spans: Requests, processes: int, cache: Path) -> list[Ingested]:
    """The tickers dealt to a pool of processes, each of which downloads its list in threads and cuts its sequences.

    cache: a folder in which each process has yfinance's files for itself: of shared ones, which the original's
    yfinance did not have, a locked one now and then costs a ticker.
    """
    parts = [part for index in range(processes) if (part := tuple(tickers[index::processes]))]
    with multiprocessing.get_context("fork").Pool(len(parts), _cache_apart, (cache,)) as pool:
        return pool.starmap(_ingest_list, [(url, part, tuple(spans)) for part in parts], chunksize=1)


def _cache_apart(cache: Path) -> None:
    yf.set_tz_cache_location(str(cache / str(os.getpid())))


def _ingest_list(url: str, tickers: Sequence[str], spans: Requests) -> Ingested:
    session = LocalSession(url)
    frames = [_download(list(tickers), span, session, threads=True, group_by="ticker") for span in spans]
    downloaded_s = time.monotonic()
    sequences = 0
    rows = dict.fromkeys(tickers, 0)
    for frame in frames:
        for ticker in tickers:
            bars = frame[ticker].dropna()
            rows[ticker] += len(bars)
            sequences += len(make_sequences(bars)[1])
    return Ingested(downloaded_s, sequences, rows)


def _download(tickers: str | list[str], span: tuple[str, str], session: LocalSession, **options: Any) -> pd.DataFrame:
    start, end = span
    return yf.download(
        tickers, start=start, end=end, interval="1m", auto_adjust=False, progress=False, session=session, **options
    )
