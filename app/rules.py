"""Rules that pydantic and a Lambda without it both need. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

RUN_ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
RUN_ID_RULE: Final = "use up to 64 letters, digits, '.', '_' and '-'"


def broken_rule(settings: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What is wrong between the values of complete settings that are right one by one; None when nothing is."""
    return next(_broken_rules(settings), None)


def _broken_rules(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    serving, dataset, training = settings["serving"], settings["dataset"], settings["training"]
    if list(dataset["horizons_min"]) != sorted(set(dataset["horizons_min"])):
        yield "dataset.horizons_min must ascend, each horizon once"
    if len(set(training["features"])) < len(training["features"]):
        yield "training.features must name each feature once"
    if dataset["window_min"] % training["resolution_min"]:
        yield "training.resolution_min must divide dataset.window_min"
    if training["kernel"] == "native" and training["precision"] != "float32":
        yield "training.kernel=native computes in float32: leave training.precision at it"
    if serving["buckets"] < serving["partitions"]:
        yield "serving.buckets must be at least serving.partitions, or tasks stay empty"
    if serving["source"] == "kinesis" and not serving["kinesis_stream"]:
        yield "serving.source=kinesis needs the name of a stream in serving.kinesis_stream"
    if serving["feed"] == "socket" and not serving["socket_address"]:
        yield "serving.feed=socket needs a host:port in serving.socket_address"
