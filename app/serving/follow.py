"""Which model the next micro-batch is scored with: the promoted one, if it can take over from the one before."""

from __future__ import annotations

from contextlib import suppress

from app.dataset.spec import Spec
from app.errors import ObjectMissing, ServingError, StorageError
from app.serving.ring_blob import state_model
from app.serving.scoring import Promoted, checked_scorer, promoted_model, read_spec
from app.storage import Bucket


class ModelFollower:
    """Follows `models/current.json` from one model on.

    model_id: the model in use; refused: why the promoted one is not, empty when it is.
    """

    def __init__(self, models: Bucket, model_id: str) -> None:
        self.model_id, self.refused = model_id, ""
        self._models = models
        self._spec: Spec | None = None
        self._refused_id = ""

    def look(self) -> None:
        """Take up the model that the pointer names, if it is whole and its state is that of the one in use.

        One that was refused is not looked at again. An S3 that does not answer changes nothing: the next call asks
        again.
        """
        try:
            promoted = promoted_model(self._models)
        except StorageError:
            return
        except ServingError as exc:
            self.refused, self._refused_id = str(exc), ""
            return
        if promoted.model_id == self.model_id:
            self.refused = self._refused_id = ""
        elif promoted.model_id != self._refused_id:
            with suppress(StorageError):
                self._take_up(promoted)

    def _take_up(self, promoted: Promoted) -> None:
        model_id = promoted.model_id
        try:
            self._spec = self._spec or read_spec(self._models, self.model_id)
            spec = checked_scorer(self._models, promoted).spec
            if state_model(spec) != state_model(self._spec) or spec.horizons_min != self._spec.horizons_min:
                raise ServingError(
                    f"its minutes, features, usual volume or horizons are not those of {self.model_id}, for which this"
                    " stream keeps its state: the stream of the next run takes it up"
                )
        except (ObjectMissing, ServingError) as exc:
            self.refused, self._refused_id = f"model {model_id} is not taken up: {exc}", model_id
            return
        self.model_id, self._spec, self.refused, self._refused_id = model_id, spec, "", ""
