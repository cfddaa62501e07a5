"""Parts of a day: the bars and the answers of one writer, under keys that their content names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa

from app import contract
from app.ingest.answers import DayAnswer, part_body
from app.sessions import Session
from app.storage import JSON_TYPE, Bucket, fingerprint
from app.tables import PARQUET_TYPE, parquet

_DIGITS = 16


def put_part(
    market: Bucket, session: Session, bars: pa.Table, answers: Mapping[str, DayAnswer], name: Callable[[str], str]
) -> str:
    """Write one part of a session, its answers after its bars; returns the part.

    name: the part, by the digest of its content. Without bars the answers are all there is.
    """
    body = parquet(bars) if len(bars) else b""
    said = part_body(answers)
    part = name(fingerprint(body, said)[:_DIGITS])
    if body:
        market.put(contract.bars_key(session.day, part), body, PARQUET_TYPE)
    market.put(contract.answers_key(session.day, part), said, JSON_TYPE)
    return part
