"""The network, and what it is trained to lessen."""

from __future__ import annotations

from typing import Any

from app import contract
from app.settings import TrainingSettings


def build_model(window: int, features: int, horizons: int, settings: TrainingSettings) -> Any:
    """The 2021 system's network, LSTM -> dropout -> dense (ReLU), with four numbers for each horizon.

    Input (batch, window, features) float32, scaled. Output (batch, horizons, 4): mean, p10, p50 and p90 of the
    log return over the horizon in units of the ticker's target_std, p10 <= p50 <= p90. The mean starts at zero:
    training starts from persistence.
    """
    import keras  # noqa: PLC0415  heavy

    keras.config.set_dtype_policy(settings.precision)
    layers = keras.layers
    inputs = layers.Input((window, features), name="window")
    seen = inputs
    if settings.resolution_min > 1:  # a mean of returns or volumes over minutes is what a longer bar would hold
        seen = layers.AveragePooling1D(settings.resolution_min, name="resolution")(seen)
    hidden = layers.LSTM(settings.lstm_units, name="lstm")(seen)
    hidden = layers.Dropout(settings.dropout, seed=settings.seed, name="dropout")(hidden)
    hidden = layers.Dense(settings.dense_units, activation="relu", name="dense")(hidden)

    def head(name: str, **more: Any) -> Any:
        return layers.Dense(horizons, dtype="float32", name=name, **more)(hidden)

    mean = head("mean", kernel_initializer="zeros")
    p50 = head("p50", kernel_initializer="zeros")
    p10 = layers.Subtract(dtype="float32", name="p10")([p50, head("below", activation="softplus")])
    p90 = layers.Add(dtype="float32", name="p90")([p50, head("above", activation="softplus")])
    parts = [layers.Reshape((horizons, 1), dtype="float32")(part) for part in (mean, p10, p50, p90)]
    forecast = layers.Concatenate(dtype="float32", name="forecast")(parts)
    return keras.Model(inputs, forecast, name="stockflow")


def window_losses(forecast: Any, targets: Any) -> Any:
    """Loss of each window (batch,): squared error of the mean and pinball losses of the quantiles, over horizons.

    forecast: (batch, horizons, 4); targets: (batch, horizons); both in units of target_std. Pinball loss: Koenker
    and Bassett 1978.
    """
    import tensorflow as tf  # noqa: PLC0415  heavy

    error = targets[..., None] - forecast
    levels = tf.constant(contract.QUANTILES, tf.float32)
    pinball = tf.maximum(levels * error[..., 1:], (levels - 1) * error[..., 1:])
    return tf.reduce_mean(tf.square(error[..., 0]) + tf.reduce_sum(pinball, axis=-1), axis=-1)
