"""Phase III: ticks in, each ticker's last minutes kept as state, predictions out, inside Spark's workers."""
