"""stockflow: parallel stock prediction, from 1-minute bars to streamed forecasts."""

__version__ = "0.1.0"
