"""Tables as the frames that a consumer works with; what makes them is imported when one is asked for."""

from __future__ import annotations

import importlib
from typing import Any, Literal, get_args

import pyarrow as pa

from app.errors import SettingsError

Frame = Literal["pandas", "polars", "arrow"]


def check_frame(frame: str) -> None:
    """SettingsError for a frame that cannot be made: before anything is read for it."""
    if frame not in get_args(Frame):
        raise SettingsError(f"frame={frame!r}: take one of {', '.join(get_args(Frame))}")
    if frame != "arrow":
        _library(frame)


def to_frame(table: pa.Table, frame: Frame) -> Any:
    """A pandas.DataFrame, a polars.DataFrame, or the pyarrow.Table itself."""
    if frame == "pandas":
        return table.to_pandas()
    return _library(frame).from_arrow(table) if frame == "polars" else table


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise SettingsError(
            f'frame="{name}" needs {name}, which cannot be imported: `pip install {name}`, or take frame="arrow"'
        ) from exc
