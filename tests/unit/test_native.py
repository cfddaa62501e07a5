"""The compiled LSTM layer against one in double precision, and what happens where it cannot be compiled."""

from __future__ import annotations

import platform
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import contract
from app.errors import TrainingError
from app.training import native
from app.training.native import NativeLstm, why_not

Array = np.ndarray[Any, np.dtype[Any]]
FIRST_ROWS = 500


@dataclass(frozen=True)
class Variable:
    """What the layer asks of a Keras variable."""

    value: Array

    def numpy(self) -> Array:
        return self.value


@dataclass(frozen=True)
class Layer:
    """What the layer asks of a Keras LSTM."""

    units: int
    trainable_variables: tuple[Variable, ...]


@dataclass(frozen=True)
class Case:
    """A layer, rows of bars, windows in them and the gradient of what lies above."""

    layer: Layer
    rows: Array
    starts: Array
    by_hidden: Array
    steps: int
    minutes: int

    def native(self, threads: int) -> NativeLstm:
        return NativeLstm(self.layer, steps=self.steps, minutes=self.minutes, threads=threads)

    @property
    def weights(self) -> list[Array]:
        return [variable.value.astype(np.float64) for variable in self.layer.trainable_variables]

    def loss(self, weights: list[Array]) -> float:
        """What has by_hidden as its gradient."""
        return float((reference(self, weights) * self.by_hidden).sum())


def case(*, units: int = 50, features: int = 2, count: int = 70, steps: int = 12, minutes: int = 1) -> Case:
    random = np.random.default_rng(units + features + count)

    def normal(*shape: int, scale: float = 1.0) -> Array:
        return (scale * random.normal(size=shape)).astype(np.float32)

    kernel, recurrent = normal(features, 4 * units, scale=0.4), normal(units, 4 * units, scale=units**-0.5)
    return Case(
        layer=Layer(units, tuple(Variable(value) for value in (kernel, recurrent, normal(4 * units, scale=0.3)))),
        rows=normal(FIRST_ROWS + steps * minutes, features),
        starts=random.integers(0, FIRST_ROWS, count),
        by_hidden=normal(count, units),
        steps=steps,
        minutes=minutes,
    )


def reference(of: Case, weights: list[Array]) -> Array:
    """Keras' LSTM layer in double precision: last hidden states (count, units)."""
    kernel, recurrent, bias = weights
    inputs = of.rows[of.starts[:, None] + np.arange(of.steps * of.minutes)].astype(np.float64)
    inputs = inputs.reshape(len(of.starts), of.steps, of.minutes, -1).mean(axis=2)
    hidden = cell = np.zeros((len(of.starts), of.layer.units))

    def sigmoid(x: Array) -> Array:
        return (1 + np.tanh(x / 2)) / 2

    for step in range(of.steps):
        gates = np.split(inputs[:, step] @ kernel + hidden @ recurrent + bias, 4, axis=1)
        cell = sigmoid(gates[1]) * cell + sigmoid(gates[0]) * np.tanh(gates[2])
        hidden = sigmoid(gates[3]) * np.tanh(cell)
    return hidden


SHAPES: list[dict[str, int]] = [
    {},
    {"count": 1},
    {"count": 32, "features": 7},
    {"count": 33, "features": 1, "units": 1},
    {"units": 2, "steps": 1},
    {"units": 13, "steps": 5, "minutes": 5},
    {"units": 64, "steps": 60, "features": 7, "count": 256},
]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_states_and_gradients_are_those_of_the_layer_in_double_precision(shape: dict[str, int], threads: int) -> None:
    assert_right(case(**shape), threads)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86-64")
@pytest.mark.parametrize("processor", ["x86-64-v3", "x86-64"])
@pytest.mark.usefixtures("no_cache")
def test_processors_without_avx512_compute_the_same(monkeypatch: pytest.MonkeyPatch, processor: str) -> None:
    flags = [f"-march={processor}" if flag == "-march=native" else flag for flag in native._FLAGS]
    monkeypatch.setattr(native, "_FLAGS", flags)
    for shape in SHAPES:
        assert_right(case(**shape), 1)


def assert_right(of: Case, threads: int) -> None:
    """The layer computes the reference's states, and gradients as their slopes are."""
    lstm = of.native(threads)
    np.testing.assert_allclose(lstm.forward(of.rows, of.starts), reference(of, of.weights), atol=2e-6)
    random = np.random.default_rng(5)
    for number, gradient in enumerate(lstm.backward(of.by_hidden)):
        assert gradient.shape == of.weights[number].shape
        for _ in range(3):  # along a random direction: a wrong element anywhere is seen
            direction = random.normal(size=gradient.shape) * 1e-5
            beside = [
                [w + sign * direction if i == number else w for i, w in enumerate(of.weights)] for sign in (1, -1)
            ]
            slope = of.loss(beside[0]) - of.loss(beside[1])
            assert (2 * gradient * direction).sum() == pytest.approx(
                slope, rel=1e-4, abs=2e-5 * float(np.linalg.norm(gradient) * np.linalg.norm(direction))
            )


def test_it_ends_with_the_same_bits_each_time_and_in_memory_that_was_used_before() -> None:
    of = case(count=100)
    lstm, other = of.native(2), case(count=200)
    first = [lstm.forward(of.rows, of.starts), *lstm.backward(of.by_hidden)]
    lstm.forward(other.rows, other.starts)
    again = [lstm.forward(of.rows, of.starts), *lstm.backward(of.by_hidden)]
    for before, after in zip(first, again, strict=True):
        np.testing.assert_array_equal(before, after)


def test_gates_that_are_far_from_zero_are_flat_and_finite() -> None:
    of = case()
    of.rows[:] *= 1e6
    lstm = of.native(1)
    np.testing.assert_allclose(lstm.forward(of.rows, of.starts), reference(of, of.weights), atol=2e-6)
    assert all(np.isfinite(gradient).all() for gradient in lstm.backward(of.by_hidden))


def test_what_is_no_number_stays_none() -> None:
    of = case()
    of.rows[of.starts[3] + 2, 1] = np.nan
    touched = (of.starts <= of.starts[3] + 2) & (of.starts > of.starts[3] + 2 - of.steps)
    hidden = of.native(1).forward(of.rows, of.starts)
    np.testing.assert_array_equal(np.isnan(hidden).any(axis=1), touched)


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache of the test's own, in which nothing is yet."""
    monkeypatch.setenv(contract.ENV_CACHE_DIR, str(tmp_path / "cache"))
    monkeypatch.setattr(native, "load_library", native.load_library.__wrapped__)
    return tmp_path / "cache" / "native"


def test_it_is_compiled_once_and_kept(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native.load_library()
    assert [path.suffix for path in no_cache.iterdir()] == [".so"]
    monkeypatch.setenv("PATH", "")
    native.load_library()


def test_another_compiler_makes_another_one(no_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    native.load_library()
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    assert why_not().startswith("training.kernel=native takes a C++ compiler")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "training.kernel=native takes a C[+][+] compiler: install g[+][+], set CXX, or set it to xla"),
        ("echo x.cpp:1: error: no such thing >&2; exit 1", "x.cpp:1: error: no such thing"),
        ("exit 1", "does not compile lstm.cpp .*: set training.kernel=xla"),
        ("exit 0", "cannot be loaded"),
    ],
)
@pytest.mark.usefixtures("no_cache")
def test_a_machine_that_cannot_compile_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str | None, message: str
) -> None:
    compiler = tmp_path / "c++"
    if script is not None:
        compiler.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(TrainingError, match=message):
        native.load_library()
    assert why_not()


def test_what_was_kept_and_is_broken_is_made_again(no_cache: Path) -> None:
    native.load_library()
    (kept,) = no_cache.iterdir()
    made = kept.read_bytes()
    kept.write_bytes(b"broken")
    native.load_library()
    assert [path.read_bytes() for path in no_cache.iterdir()] == [made]


@pytest.mark.usefixtures("no_cache")
def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (contract.ENV_CACHE_DIR, "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as it does without an entry for the user
    monkeypatch.setattr("pathlib.Path.is_file", raising_permission_error)
    monkeypatch.setattr("pathlib.Path.mkdir", raising_permission_error)
    native.load_library()


def raising_permission_error(*args: Any, **kwargs: Any) -> bool:
    raise PermissionError


@pytest.mark.usefixtures("no_cache")
def test_a_cache_that_cannot_be_written_costs_a_compilation_each_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv(contract.ENV_CACHE_DIR, str(tmp_path / "file"))
    native.load_library()
