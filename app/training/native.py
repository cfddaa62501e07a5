"""The LSTM layer on the cores of a CPU: `lstm.cpp`, compiled for this machine the first time it is used on it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from app import contract
from app.dataset.features import Rows
from app.dataset.windows import Index
from app.errors import TrainingError

_SOURCE = Path(__file__).with_name("lstm.cpp")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC")
_ALIGNED = 64
_COMPILE_S = 120.0

_Pointer, _int, _size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
_FUNCTIONS: Mapping[str, tuple[Any, list[Any]]] = {
    "stockflow_lstm_bytes": (_size, [_int] * 4),
    "stockflow_lstm_forward": (None, [_Pointer] * 2 + [_int] * 5 + [_Pointer] * 5),
    "stockflow_lstm_backward": (None, [_int] * 4 + [_Pointer] * 4),
}


class NativeLstm:
    """Forward and backward pass of a Keras LSTM layer over windows gathered from rows, split over threads.

    steps, minutes: of a window, and rows of which each step takes the mean. What the forward pass keeps for the
    backward pass, 6 x units x steps floats a window, is held until the next forward pass.
    """

    def __init__(self, layer: Any, *, steps: int, minutes: int, threads: int) -> None:
        self._library = load_library()
        self._layer, self._steps, self._minutes = layer, steps, minutes
        self._ranges: list[slice] = []
        self._parts = [_Part(self._library) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def forward(self, rows: Rows, starts: Index) -> Rows:
        """Last hidden states (n, units) of the windows that start at these rows (n,) of `rows` (any, features)."""
        weights = [np.ascontiguousarray(variable.numpy()) for variable in self._layer.trainable_variables]
        rows, starts = np.ascontiguousarray(rows, np.float32), np.ascontiguousarray(starts, np.int32)
        cuts = [number * len(starts) // len(self._parts) for number in range(len(self._parts) + 1)]
        self._ranges = [slice(*cut) for cut in pairwise(cuts)]
        hidden = np.empty((len(starts), self._layer.units), np.float32)
        self._each(
            lambda part, taken: part.forward(rows, starts[taken], self._steps, self._minutes, weights, hidden[taken])
        )
        return hidden

    def backward(self, by_hidden: Rows) -> list[Rows]:
        """Gradients of kernel, recurrent kernel and bias, from those of the last forward pass's states (n, units)."""
        by_hidden = np.ascontiguousarray(by_hidden, np.float32)
        sums = self._each(lambda part, taken: part.backward(by_hidden[taken]))
        total = np.add.reduce(sums)
        units = self._layer.units
        return [total[units:-1], total[:units], total[-1]]

    def _each(self, run: Any) -> list[Any]:
        """What each part makes of its range; in the order of the parts, whoever is done first."""
        every = map if self._pool is None else self._pool.map
        return list(every(run, self._parts, self._ranges))


class _Part:
    """One thread's share of a batch, and the memory it needs."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._kept = np.empty(0, np.uint8)
        self._shape, self._recurrent = (0, 0, 0, 0), np.empty(0, np.float32)

    def forward(self, rows: Rows, starts: Index, steps: int, minutes: int, weights: list[Rows], hidden: Rows) -> None:
        """Write the last hidden states into `hidden`."""
        features, units = rows.shape[1], hidden.shape[1]
        self._shape = len(starts), steps, features, units
        needed = self._library.stockflow_lstm_bytes(*self._shape) + _ALIGNED
        if needed > len(self._kept):
            self._kept = np.empty(needed, np.uint8)
        self._recurrent = weights[1]
        self._library.stockflow_lstm_forward(
            _at(rows), _at(starts), len(starts), steps, minutes, features, units, *map(_at, weights), self._memory(),
            _at(hidden),
        )  # fmt: skip

    def backward(self, by_hidden: Rows) -> Rows:
        """The gradient (units + features + 1, 4 units) of recurrent kernel, kernel and bias, one above the other."""
        _, _, features, units = self._shape
        gradient = np.empty((units + features + 1, 4 * units), np.float32)
        self._library.stockflow_lstm_backward(
            *self._shape, _at(self._recurrent), self._memory(), _at(by_hidden), _at(gradient)
        )
        return gradient

    def _memory(self) -> int:
        return -(-self._kept.ctypes.data // _ALIGNED) * _ALIGNED


def _at(array: Any) -> int:
    address: int = array.ctypes.data
    return address


def why_not() -> str:
    """Why this machine cannot compile the layer; empty where it can, or has done so before."""
    try:
        load_library()
    except TrainingError as exc:
        return str(exc)
    return ""


@lru_cache(maxsize=1)
def load_library() -> ctypes.CDLL:
    """The compiled layer; TrainingError when there is no compiler, or none that compiles it."""
    name = _name(os.environ)
    kept = _cache(os.environ) / name
    with suppress(OSError, TrainingError):  # not there, not readable or broken: it is made again
        if kept.is_file():
            return _open(kept)
    with tempfile.TemporaryDirectory(prefix="stockflow-native-") as folder:
        made = _compile(Path(folder, name), os.environ)
        library = _open(made)
        with suppress(OSError):  # a home that cannot be written to: each process compiles it again
            _keep(made, kept)
    return library


def _open(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as exc:
        raise TrainingError(f"what {_SOURCE.name} became cannot be loaded ({exc}): set training.kernel=xla") from exc
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _name(environ: Mapping[str, str]) -> str:
    """The file's name tells what it is made of and for, so that machines may share a home."""
    made_of = [_SOURCE.read_text(encoding="utf-8"), *_FLAGS, environ.get("CXX", ""), _processor()]
    return f"lstm-{hashlib.sha256(chr(0).join(made_of).encode()).hexdigest()[:16]}.so"


def _cache(environ: Mapping[str, str]) -> Path:
    """The folder of compiled layers; one that nobody can write to where there is no home."""
    if given := environ.get(contract.ENV_CACHE_DIR):
        return Path(os.path.expanduser(given), "native")  # Path.expanduser raises without a home
    home = environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home, "stockflow", "native")


def _compile(made: Path, environ: Mapping[str, str]) -> Path:
    compiler = shutil.which(environ.get("CXX") or "g++", path=environ.get("PATH"))
    if compiler is None:
        raise TrainingError("training.kernel=native takes a C++ compiler: install g++, set CXX, or set it to xla")
    command = [compiler, *_FLAGS, "-o", str(made), str(_SOURCE)]
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_S, check=True)
    except (OSError, subprocess.SubprocessError) as exc:
        lines = str(getattr(exc, "stderr", None) or exc).strip().splitlines()
        why = next((line for line in lines if "error" in line), lines[-1])
        raise TrainingError(f"{compiler} does not compile {_SOURCE.name} ({why}): set training.kernel=xla") from exc
    return made


def _keep(made: Path, kept: Path) -> None:
    """A copy that appears whole: several ranks may come here at once."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        copy = Path(folder, kept.name)
        shutil.copy(made, copy)
        copy.replace(kept)


def _processor() -> str:
    """What the compiler's `native` stands for here."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.platform()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
