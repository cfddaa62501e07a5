"""How the streaming step is submitted."""

from __future__ import annotations

from infra.settings import InferenceSettings

_CORES_LEFT = 2
"""On each node for YARN, HDFS and the driver."""


def spark_submit(settings: InferenceSettings, environment_url: str, script_url: str) -> list[str]:
    """spark-submit's words up to and with the script. environment_url: what `make emr` built.

    One executor on each core node. The overhead is what its Python workers live in; it is larger than the heap,
    because state and scoring are theirs. The driver, in cluster mode, runs on a core node too. Encryption of
    Spark's connections comes from the security configuration.
    """
    scale = settings.gib_per_vcpu / 4
    cores = max(1, settings.vcpus - _CORES_LEFT)
    conf = {
        "spark.driver.memoryOverhead": "2g",
        "spark.executor.memoryOverhead": f"{max(1, int(settings.vcpus * scale))}g",
        "spark.dynamicAllocation.enabled": "false",
        "spark.pyspark.python": "./environment/bin/python",
        "spark.yarn.maxAppAttempts": "2",  # a second driver goes on from the checkpoint
        "spark.log.level": "WARN",
    }
    return [
        "spark-submit",
        *("--master", "yarn", "--deploy-mode", "cluster"),
        *("--archives", f"{environment_url}#environment"),
        *("--driver-cores", "1", "--driver-memory", "2g"),
        *("--num-executors", str(settings.core_instances), "--executor-cores", str(cores)),
        *("--executor-memory", f"{max(1, int(cores * scale))}g"),
        *(word for name, value in conf.items() for word in ("--conf", f"{name}={value}")),
        script_url,
    ]
