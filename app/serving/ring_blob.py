"""Rings as one compact blob, and which model's rings it takes back."""

from __future__ import annotations

import hashlib
import math
from typing import Final

import numpy as np
import pyarrow as pa

from app.contract import FEATURE_RELATIVE_VOLUME
from app.dataset.spec import Spec
from app.errors import ServingError
from app.serving.rings import STATE, Rings

_VERSION: Final = b"3"
_LISTS: Final = ("rows", "bars", "bar_ts")
"""The arrays with several values for each ticker."""


def pack(rings: Rings) -> bytes:
    """All rings as one Arrow IPC stream."""
    columns = {"ticker": pa.array(rings.tickers, pa.string())}
    for name in STATE:
        array = getattr(rings, name)
        columns[name] = pa.array(array.ravel())
        if name in _LISTS:
            columns[name] = pa.FixedSizeListArray.from_arrays(columns[name], math.prod(array.shape[1:]))
    about = {b"version": _VERSION, b"watermark": str(rings.watermark).encode(), **state_model(rings.spec)}
    table = pa.table(columns).replace_schema_metadata(about)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def unpack(blob: bytes, spec: Spec) -> Rings:
    """The inverse of pack. ServingError when the blob was written for a model whose rows are made otherwise."""
    table = pa.ipc.open_stream(blob).read_all()
    about = table.schema.metadata
    _refuse_another(about, spec)
    rings = Rings.empty(table["ticker"].to_pylist(), spec, int(about[b"watermark"]))
    for name in STATE:
        array = getattr(rings, name)
        column = table[name].combine_chunks()
        flat = column.values if name in _LISTS else column
        setattr(rings, name, flat.to_numpy(zero_copy_only=False).reshape(array.shape).copy())
    return rings


def state_model(spec: Spec) -> dict[bytes, bytes]:
    """What the rows of a model's windows are made with: models that agree in it can take over each other's state."""
    profile = np.array(spec.volume_profile if FEATURE_RELATIVE_VOLUME in spec.features else (), np.float64)
    return {
        b"window": str(spec.window_min).encode(),
        b"features": ",".join(spec.features).encode(),
        b"usual_volume": hashlib.sha256(profile.tobytes()).hexdigest().encode(),
    }


def _refuse_another(about: dict[bytes, bytes], spec: Spec) -> None:
    wanted = state_model(spec)
    if about[b"version"] != _VERSION:
        raise ServingError("the stream's state is of another version of this code: start the stream with a new run id")
    if any(about[name] != wanted[name] for name in (b"window", b"features")):
        raise ServingError(
            f"the stream's state was written for a window of {about[b'window'].decode()} minutes of"
            f" {about[b'features'].decode()}, the model takes {wanted[b'window'].decode()} of"
            f" {wanted[b'features'].decode()}: start the stream with a new run id"
        )
    if about[b"usual_volume"] != wanted[b"usual_volume"]:
        raise ServingError(
            "the stream's state was written for a model that was trained on other days, whose usual volume"
            " is another: start the stream with a new run id"
        )
