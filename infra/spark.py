"""How the streaming step is submitted."""

from __future__ import annotations

from infra.settings import DRIVER_GIB, InferenceSettings

CHECKPOINTS = "hdfs:///user/hadoop/stockflow"
"""On the cluster's own disks, in the folder of the step's user: in S3 a checkpoint costs 140 requests a micro-batch."""


def spark_submit(settings: InferenceSettings, environment_url: str, script_url: str) -> list[str]:
    """spark-submit's words up to and with the script. environment_url: what `make emr` built.

    One executor on each core node. The driver, in cluster mode, runs on a core node too. Encryption of Spark's
    connections comes from the security configuration.
    """
    conf = {
        "spark.driver.memoryOverhead": f"{DRIVER_GIB // 2}g",
        "spark.executor.memoryOverhead": f"{settings.overhead_gib}g",
        "spark.dynamicAllocation.enabled": "false",
        "spark.pyspark.python": "./environment/bin/python",
        "spark.yarn.maxAppAttempts": "2",  # a second driver goes on from the checkpoint
        "spark.log.level": "WARN",
    }
    return [
        "spark-submit",
        *("--master", "yarn", "--deploy-mode", "cluster"),
        *("--archives", f"{environment_url}#environment"),
        *("--driver-cores", "1", "--driver-memory", f"{DRIVER_GIB // 2}g"),
        *("--num-executors", str(settings.core_instances), "--executor-cores", str(settings.executor_cores)),
        *("--executor-memory", f"{settings.heap_gib}g"),
        *(word for name, value in conf.items() for word in ("--conf", f"{name}={value}")),
        script_url,
    ]
