"""What a trained model is worth: calibrated on the validation days, measured there and on the untouched test days."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf

from app.dataset.features import FloatArray
from app.dataset.forecast import MEAN, calibrate, calibrated
from app.dataset.spec import Spec
from app.dataset.windows import WindowSet
from app.training.evaluate import SplitMetrics, evaluate
from app.training.fit import Trained
from app.training.inputs import StoredDataset
from app.training.linear import LinearModel, LinearSums, fit_linear
from app.training.part import Part
from app.training.steps import Forecaster, Resident
from app.training.watchdog import Beat

_CHUNK = 4096


@dataclass(frozen=True)
class Judged:
    """A model's spec with its calibration, and its metrics by split.

    returns: (n, horizons) log returns that it forecasts on the validation days; sample: test inputs to compare exports
    on.
    """

    spec: Spec
    validation: SplitMetrics
    test: SplitMetrics
    linear: SplitMetrics
    returns: FloatArray
    sample: Any


def train_sums(train: Part, beat: Beat) -> LinearSums:
    """What the linear model needs of the training windows of all ranks; every rank calls it."""
    chunks = (train.chunk(number) for number in range(train.chunks))
    mine = reduce(LinearSums.added, (_sums(chunk, beat) for chunk in chunks))
    parts = (mine.gram, mine.moment, mine.square, np.float64(mine.count))
    added = [hvd.allreduce(tf.constant(part), op=hvd.Sum, name=f"linear.{i}").numpy() for i, part in enumerate(parts)]
    return LinearSums(added[0], added[1], added[2], float(added[3]))


def judge(trained: Trained, dataset: StoredDataset, sums: LinearSums, seed: int, beat: Beat) -> Judged:
    """Measure rank 0's model. The test days are read here and nowhere before."""
    spec, forecaster = dataset.spec, Forecaster(trained.model)
    beat("reading the validation days")
    validation = dataset.split("validation").read()
    raw, _ = forecaster(Resident(validation), partial(beat, "forecasts of the validation days"))
    spec = replace(spec, calibration=calibrate(raw, validation.targets / validation.target_std))
    linear = fit_linear(sums, _sums(validation, beat))
    beat("reading the test days")
    test = dataset.split("test").read()
    forecast, _ = forecaster(Resident(test), partial(beat, "forecasts of the test days"))
    beat("the metrics")
    predicted = _linear_returns(linear, test)
    return Judged(
        spec=spec,
        validation=_measured(calibrated(raw, spec.calibration), validation, spec, seed, None),
        test=_measured(calibrated(forecast, spec.calibration), test, spec, seed, predicted),
        linear=_measured(predicted[..., None] / test.target_std[..., None], test, spec, seed, None),
        returns=raw[..., MEAN].astype(np.float64) * validation.target_std,
        sample=test.inputs(slice(0, 64)),
    )


def _measured(
    forecast: FloatArray, windows: WindowSet, spec: Spec, seed: int, linear: FloatArray | None
) -> SplitMetrics:
    """Metrics of forecasts in units of target_std; linear: log returns of the linear model."""
    return evaluate(
        forecast * windows.target_std[..., None].astype(np.float64),
        last_price=windows.last_price,
        future_price=windows.future_price,
        as_of=windows.as_of,
        horizons_min=spec.horizons_min,
        seed=seed,
        linear=linear,
    )


def _sums(windows: WindowSet, beat: Beat) -> LinearSums:
    def of(part: slice) -> LinearSums:
        beat("the linear model")
        return LinearSums.of(windows.inputs(part), windows.targets[part] / windows.target_std[part])

    return reduce(LinearSums.added, (of(slice(first, first + _CHUNK)) for first in range(0, len(windows), _CHUNK)))


def _linear_returns(model: LinearModel, windows: WindowSet) -> FloatArray:
    """Log returns (n, horizons) that the linear model forecasts."""
    parts = [model.predict(windows.inputs(slice(first, first + _CHUNK))) for first in range(0, len(windows), _CHUNK)]
    returns: FloatArray = np.concatenate(parts) * windows.target_std
    return returns
