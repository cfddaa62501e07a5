"""The network."""

from __future__ import annotations

from typing import Any

from app.settings import TrainingSettings


def build_model(window: int, features: int, settings: TrainingSettings) -> Any:
    """The 2021 system's network: LSTM -> dropout -> dense (ReLU) -> one number.

    Input (batch, window, features) float32, scaled. Output (batch, 1): log return over the horizon in
    units of the ticker's target_std. The last layer starts at zero: training starts from persistence.
    """
    import keras  # noqa: PLC0415  heavy

    return keras.Sequential(
        [
            keras.layers.Input((window, features), name="window"),
            keras.layers.LSTM(settings.lstm_units, name="lstm"),
            keras.layers.Dropout(settings.dropout, seed=settings.seed, name="dropout"),
            keras.layers.Dense(settings.dense_units, activation="relu", name="dense"),
            keras.layers.Dense(1, kernel_initializer="zeros", name="forecast"),
        ],
        name="stockflow",
    )
