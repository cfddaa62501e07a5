"""What a run leaves under build/run: summary.json, and the predictions and the model as plain files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from app import contract
from app.errors import SettingsError
from app.settings import Settings
from app.storage import Bucket, to_json

if TYPE_CHECKING:
    from embedded.local import Local
    from embedded.phases import PhaseRun
    from embedded.run import Outcome

_COPIED = {
    "market": (contract.RUNS_PREFIX,),
    "model": (contract.MODELS_PREFIX, contract.DATASETS_PREFIX),
    "predictions": (contract.PREDICTIONS_PREFIX, contract.LATEST_PREDICTIONS_KEY),
}
SUMMARY = "summary.json"
COVERAGE = "coverage.json"
IAM = "iam.json"
LOGS = "logs"
REPORT, FIGURES = "report.html", "figures"
"""What `stockflow report` adds."""
_OF_SERVING = {"predictions": "predictions", "ticks": "ticks", "minutes_replayed": "minutes"}
_STAYS = "mae_persistence_usd"
_JUDGED = ("validation", "test", "linear")
_STATUSES = {"SUCCEEDED": "succeeded", "FAILED": "failed", "TIMED_OUT": "failed", "ABORTED": "interrupted"}


def collect(
    local: Local,
    run_id: str,
    outcome: Outcome,
    settings: Settings,
    peak_rss_mib: int,
    attainable: Mapping[int, float] | None = None,
) -> dict[str, Any]:
    """The summary of a run; figures of phases that did not succeed are null.

    attainable: by horizon, the skill that the market allows on the test days, where that is known.
    """
    results = {phase.name: phase.result for phase in outcome.phases}
    return {
        "market": local.market,
        "run_id": run_id,
        "status": _STATUSES.get(outcome.execution.status, "failed"),
        "error": outcome.error,
        "execution": outcome.execution.to_json(),
        "iam": _iam(outcome),
        "deployment": _deployment(local.deployed),
        "phases": [_phase(phase) for phase in outcome.phases],
        **_bars(results["ingest"], results["dataset"]),
        **_model(results["train"], results["promote"]),
        "attainable_skill": {str(minutes): skill for minutes, skill in attainable.items()} if attainable else None,
        **{told: results["serve"].get(name) for told, name in _OF_SERVING.items()},
        "peak_rss_mib": peak_rss_mib,
        "settings": settings.model_dump(mode="json"),
    }


def _iam(outcome: Outcome) -> dict[str, Any]:
    """Which grants are unused is known when all phases have gone their way."""
    iam, whole = outcome.iam, all(phase.status == "succeeded" for phase in outcome.phases)
    return {
        "calls": iam.get("role_calls"),
        "calls_without_grant": len(iam["calls_without_grant"]) if iam else None,
        "unused_grants_unjustified": len(iam["unused_grants_unjustified"]) if iam and whole else None,
    }


def _deployment(deployed: Mapping[str, Any]) -> dict[str, Any]:
    """adapted: how many rules had to help; ignored: properties by type that nothing looked at."""
    return {
        **{name: deployed[name] for name in ("seconds", "not_created", "ignored")},
        "adapted": len(deployed["adapted"]),
    }


def _phase(phase: PhaseRun) -> dict[str, Any]:
    return {
        "name": phase.name,
        "status": phase.status,
        "wall_s": round(phase.wall_s, 3),
        "rows": phase.result.get("rows"),
        "where": phase.result.get("where"),
    }


def _bars(ingest: Mapping[str, Any], dataset: Mapping[str, Any]) -> dict[str, Any]:
    statuses = ingest.get("statuses", {})
    return {
        "tickers_requested": ingest.get("requested"),
        "tickers_complete": statuses.get("complete"),
        "tickers_by_status": statuses or None,
        "days": ingest.get("days"),
        "bars": ingest.get("rows"),
        "bars_held": ingest.get("held"),
        "volume_faults": len(dataset["volume_faults"]) if dataset else None,
        "volume_fault_days": sorted({fault["day"] for fault in dataset.get("volume_faults", [])}),
    }


def _model(train: Mapping[str, Any], promote: Mapping[str, Any]) -> dict[str, Any]:
    metrics = train.get("metrics", {})
    test = metrics.get("test", {})
    horizons = test.get("horizons", {}).values()
    mean = {name: fmean(of[name] for of in horizons) if horizons else None for name in ("mae_usd", _STAYS)}
    return {
        "windows_train": metrics.get("windows_train"),
        "ranks": metrics.get("ranks"),
        "rank_weight_max_diff": metrics.get("rank_weight_max_diff"),
        "model_id": train.get("model_id"),
        "promoted": promote.get("promote"),
        "promotion_reason": promote.get("reason"),
        **mean,
        "skill": test.get("skill"),
        "metrics": {name: metrics[name] for name in _JUDGED} if metrics else None,
    }


def check_run_folder(out: Path) -> Path:
    """The absolute path of the folder that a run may replace.

    Raises SettingsError unless it is absent, empty or an earlier run's, and can be made.
    """
    folder = out.expanduser().resolve()
    if folder == Path.cwd() or folder in Path.cwd().parents:
        raise SettingsError(f"--out {out} holds the folder that you stand in: name one that a run may replace")
    try:
        foreign = folder.exists() and not (folder.is_dir() and ((folder / SUMMARY).is_file() or _holds_nothing(folder)))
        if not foreign:
            folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise SettingsError(f"--out {out} cannot be written ({exc.strerror}): name another folder") from exc
    if foreign:
        raise SettingsError(f"--out {out} holds something else than an earlier run: name a new folder")
    return folder


def _holds_nothing(folder: Path) -> bool:
    """Whether it is empty, but for a report that was written where there was no run."""
    names = {path.name for path in folder.iterdir()}
    return not names or (REPORT in names and names <= {REPORT, FIGURES})


def write_run_folder(
    out: Path,
    summary: Mapping[str, Any],
    buckets: Mapping[str, Bucket],
    run_id: str,
    logs: Path,
    iam: Mapping[str, Any],
) -> None:
    """Put this run's results in the place of an earlier run's, which stay until all is written.

    buckets: what to copy from, by role; none when the embedded S3 has gone. logs: folder of what the phases said;
    iam: the judged record of calls.
    """
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    old = fresh.with_name(f"{fresh.name}-old")
    try:
        shutil.copytree(logs, fresh / LOGS)
        for name, bucket in buckets.items():
            for prefix in _COPIED[name]:
                for key in bucket.keys(prefix):
                    if not _left_out(key):
                        _write(fresh / _place(key, run_id), bucket.get(key))
        _write(fresh / IAM, to_json(iam))
        _write(fresh / SUMMARY, to_json(summary))
        fresh.chmod(0o755)
        if out.exists():
            out.rename(old)
        fresh.rename(out)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _left_out(key: str) -> bool:
    """What only the phases themselves need: training data, checkpoints, the stream's first state."""
    return key.endswith((".npz", ".arrow")) or (key.startswith(contract.DATASETS_PREFIX) and key.endswith(".parquet"))


def _place(key: str, run_id: str) -> str:
    """The key without the run's id: the folder holds one run."""
    return key.replace(f"{contract.RUNS_PREFIX}{run_id}/", "").replace(
        f"{contract.DATASETS_PREFIX}{run_id}/", "dataset/"
    )


def _write(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
