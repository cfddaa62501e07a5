"""Rank 0's side of a training job: what it keeps in S3 while it runs, and leaves there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app import contract
from app.clock import system_clock
from app.settings import Place, Settings
from app.storage import Bucket
from app.training.checkpoint import Checkpoints
from app.training.current import compare_current
from app.training.export import export_model
from app.training.fit import Trained
from app.training.inputs import StoredDataset
from app.training.judge import judge
from app.training.linear import LinearSums
from app.training.publish import begin_training, make_model_id, publish_model, what_trains
from app.training.watchdog import Beat


@dataclass(frozen=True)
class Job:
    """One job, of `ranks` ranks; models: the bucket that rank 0 alone has."""

    models: Bucket
    place: Place
    dataset: StoredDataset
    settings: Settings
    ranks: int

    @property
    def model_id(self) -> str:
        """The model is the dataset's, so that another run finds its checkpoints; the candidate is this run's alone."""
        return make_model_id(self.place.dataset_run, self.dataset.spec, self.settings)

    def checkpoints(self) -> Checkpoints:
        """Those of this model. TrainingError when the run has begun to train another one."""
        training = self.settings.training
        about = {
            "dataset": self.dataset.spec.fingerprint,
            "settings": what_trains(self.settings),
            "ranks": self.ranks,
        }
        begin_training(self.models, self.place.run_id, self.model_id, about)
        return Checkpoints(self.models, self.model_id, about, training.checkpoints_kept)

    def publish(self, trained: Trained, sums: LinearSums, times: Mapping[str, float], beat: Beat) -> None:
        """Measure the model, export it and leave it as the run's candidate. times: for its metrics, in seconds."""
        settings, validation = self.settings, self.dataset.split("validation")
        judged = judge(trained, self.dataset, sums, settings.training.seed, beat)
        beat("the comparison with the model that serves")
        metrics = {
            "validation": judged.validation.to_json(),
            "test": judged.test.to_json(),
            "linear": {"test": judged.linear.to_json()},
            "current": compare_current(
                *(self.models, validation.table, judged.spec, settings.dataset.max_filled_share, judged.returns),
            ),
            "windows_train": self.dataset.split("train").windows,
            "ranks": self.ranks,
            "rank_weight_max_diff": trained.rank_weight_max_diff,
            "steps_per_epoch": trained.steps_per_epoch,
            "best_epoch": trained.best_epoch,
            "batch": settings.training.batch,
            "kernel": trained.kernel,
            "kernel_s": dict(trained.kernel_s),
            **times,
            "history": trained.history,
        }
        beat("the export")
        keras_bytes, onnx_bytes = export_model(trained.model, judged.sample)
        beat("publishing")
        files = {contract.MODEL_KERAS: keras_bytes, contract.MODEL_ONNX: onnx_bytes}
        publish_model(
            *(self.models, self.place.run_id, self.model_id, judged.spec, settings, files, metrics, self.dataset.days),
            now=system_clock(),
        )
