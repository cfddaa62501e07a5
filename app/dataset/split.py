"""Train, validation and test are whole sessions in time order, with a gap between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.errors import TooFewBars
from app.sessions import Session

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Sessions of one part, and how many minutes at its end belong to the gap."""

    name: str
    sessions: tuple[Session, ...]
    gap_min: int

    def minutes_of(self, session: Session) -> int:
        """Minutes of a session, from its open, that may be used."""
        later = sum(other.minutes for other in self.sessions if other > session)
        return max(0, session.minutes - max(0, self.gap_min - later))


def split_by_time(sessions: Sequence[Session], *, validation: int, test: int, gap_min: int) -> dict[str, Split]:
    """The last `test` sessions, the `validation` sessions before them, and all earlier ones for training.

    gap_min: trading minutes left out between two parts (window + horizon): taken from the end of the
    earlier part, so that no bar that a training window or target has seen lies within that distance of
    the next part. Raises TooFewBars when no session is left for training.
    """
    train = len(sessions) - validation - test
    if train < 1:
        raise TooFewBars(
            f"{len(sessions)} sessions are too few for {validation} validation and {test} test days and one to train"
            " on: raise ingest.days or lower dataset.validation_days and dataset.test_days"
        )
    ordered = tuple(sorted(sessions))
    return {
        "train": Split("train", ordered[:train], gap_min),
        "validation": Split("validation", ordered[train : train + validation], gap_min),
        "test": Split("test", ordered[train + validation :], 0),
    }
