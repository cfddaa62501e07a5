"""The cluster, the stream on it, the feed beside it, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app import contract
from app.workflow.names import CLUSTER_NAME
from infra.states.asl import EMR_FAULTS, State, States, backoff, call, chain, task
from infra.states.jobs import Job, batch_job

_CREATE_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Stream:
    """The streaming step.

    submit: spark-submit's words up to and with the script; environ: variables of every run; checkpoints: folder.
    """

    submit: Sequence[str]
    environ: Mapping[str, str]
    checkpoints: str
    timeout_s: int


def serve_states(*, cluster: Mapping[str, Any] | str, stream: Stream, feed: Job, verify: str, then: str) -> States:
    """Start a cluster, stream and feed side by side, verify the predictions, end the cluster.

    cluster: parameters of a new one, or the id of the one that is always on.
    """
    side_by_side = {
        "Type": "Parallel",
        "Branches": [
            {"StartAt": "StreamPredictions", "States": {"StreamPredictions": _stream_step(stream) | {"End": True}}},
            {"StartAt": "FeedTicks", "States": {"FeedTicks": batch_job(feed, "feed", ["feed"]) | {"End": True}}},
        ],
        "ResultPath": None,
    }
    verified = call(verify, into="$.served", fields=("predictions", "objects", "day", "model_id"))
    if isinstance(cluster, str):
        use = {"Type": "Pass", "Result": {"id": cluster}, "ResultPath": "$.cluster"}
        return chain({"UseCluster": use, "ServeSession": side_by_side, "VerifyPredictions": verified}, then)
    return chain(
        {
            "CreateCluster": task(
                "arn:aws:states:::elasticmapreduce:createCluster.sync",
                {"Name.$": f"States.Format('{CLUSTER_NAME}', $.job_prefix)", **cluster},
                retry=[backoff(*EMR_FAULTS, attempts=3, first_s=10)],
                timeout_s=_CREATE_TIMEOUT_S,
                select={"id.$": "$.ClusterId"},
                into="$.cluster",
            ),
            "ServeSession": side_by_side,
            "VerifyPredictions": verified,
            "ReleaseCluster": task(
                "arn:aws:states:::elasticmapreduce:terminateCluster",
                {"ClusterId.$": "$.cluster.id"},
                retry=[backoff(*EMR_FAULTS)],
                timeout_s=60,
            ),
        },
        then,
    )


def first_serve_state(cluster: Mapping[str, Any] | str) -> str:
    """Where serving begins."""
    return "UseCluster" if isinstance(cluster, str) else "CreateCluster"


def _stream_step(stream: Stream) -> State:
    words = [
        *(f"'{_escaped(word)}'" for word in stream.submit),
        *(f"'{word}'" for name, value in stream.environ.items() for word in ("--env", f"{name}={value}")),
        *("'--env'", f"States.Format('{contract.ENV_RUN_ID}={{}}', $.run_id)"),
        # Base64, because YARN's own shell eats the braces of JSON.
        *("'--env-base64'", f"States.Format('{contract.ENV_SETTINGS}={{}}', States.Base64Encode($.settings_json))"),
        *("'--checkpoint'", f"'{stream.checkpoints}'"),
    ]
    parameters = {
        "ClusterId.$": "$.cluster.id",
        "Step": {
            "Name.$": "States.Format('{}-stream', $.job_prefix)",
            "ActionOnFailure": "CONTINUE",
            "HadoopJarStep": {"Jar": "command-runner.jar", "Args.$": f"States.Array({', '.join(words)})"},
        },
    }
    return task(
        "arn:aws:states:::elasticmapreduce:addStep.sync",
        parameters,
        retry=[backoff(*EMR_FAULTS, attempts=3, first_s=10)],
        timeout_s=stream.timeout_s,
    )


def _escaped(word: str) -> str:
    """A word inside the single quotes of an intrinsic function."""
    return word.replace("\\", "\\\\").replace("'", "\\'")
