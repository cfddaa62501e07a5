"""How the streaming step is submitted."""

from __future__ import annotations

from infra.settings import InferenceSettings

CHECKPOINTS = "hdfs:///stockflow/checkpoints"
"""On the cluster's own disks: a checkpoint in S3 costs some 140 requests a micro-batch."""


def spark_submit(settings: InferenceSettings, environment_url: str, script_url: str) -> list[str]:
    """spark-submit's words up to and with the script. environment_url: what `make emr` built."""
    return [
        "spark-submit",
        *("--deploy-mode", "cluster"),
        *("--archives", f"{environment_url}#environment"),
        script_url,
    ]
