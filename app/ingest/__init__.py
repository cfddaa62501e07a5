"""Phase I: universe -> shards -> 1-minute bars as Parquet, and a manifest that accounts for every ticker."""
