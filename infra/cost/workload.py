"""How much there is to do, and on what: from the deployment's settings and the assumptions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from app import contract
from app.ingest.universe import SP500_SIZE, parse_universe
from infra.cost.assumptions import Assumptions
from infra.settings import Deployment

# As deployed. The constructs that say so need the CDK, so a test holds these against the templates.
FLEET_DISK_GIB: Final = 40
CLUSTER_DISK_GIB: Final = 32 + 64
"""Of each node: root and data."""
DATASET_GIB_PER_VCPU: Final = 4
FEED_VCPUS: Final = 1
FEED_GIB: Final = 2
LAMBDA_GIB: Final = 0.25
KEYS: Final = 1
DASHBOARDS: Final = 1
ALARM_METRICS: Final = 8
"""Metrics that alarms watch, each billed as an alarm; one more where the state machine scales the fleet."""

_TRADING_DAYS_A_WEEK = 5 / 7
_WIDTHS = {"string": 16, "double": 8, "int32": 4, "int64": 8, "timestamp[ms, tz=UTC]": 8}
_OBJECT_BYTES = 3000
"""Of a Parquet object beside its rows."""
_ANSWER_BYTES = 100
"""Of a ticker in what a day's answers say of it."""
_ROW_BYTES, _FEATURE_BYTES = 16 + 8 + 8 + 1, 4
"""Of a dataset's row: ticker, time, close and whether there was a bar, then each feature."""
_MODEL_BYTES = 3_000_000
"""Of a model with its checkpoints."""


@dataclass(frozen=True)
class Workload:
    """Quantities of one run of a deployment. Times are in seconds or hours, as their names say."""

    deployment: Deployment
    assumed: Assumptions

    @cached_property
    def tickers(self) -> int:
        """Size of the universe; sp500 is not fetched for it."""
        sp500 = [f"SP{number}" for number in range(SP500_SIZE)]
        return self.assumed.tickers or len(parse_universe(self.deployment.universe, lambda: sp500))

    @property
    def sessions(self) -> int:
        """Trading days among those that ingest asks for."""
        return max(1, round(self.deployment.settings.ingest.days * _TRADING_DAYS_A_WEEK))

    @property
    def shards(self) -> int:
        """Parts of the universe; none is empty."""
        return min(self.deployment.settings.ingest.shards, self.tickers)

    @property
    def rows(self) -> int:
        """Minutes of all tickers in all sessions."""
        return self.tickers * self.sessions * self.assumed.session_min

    @property
    def requests_per_ticker(self) -> int:
        """Requests to Yahoo for one ticker's days."""
        ingest = self.deployment.settings.ingest
        return math.ceil(ingest.days / ingest.request_days)

    @property
    def fleet_instances(self) -> int:
        """As app.workflow.ingestion.plan_shards counts them."""
        fleet = self.deployment.ingestion
        return min(fleet.max_instances, math.ceil(self.shards / fleet.jobs_per_instance))

    @property
    def workers(self) -> int:
        """Shards that are fetched at the same time, and share the budget of requests."""
        return min(self.shards, self.fleet_instances * self.deployment.ingestion.jobs_per_instance)

    @property
    def requests_per_shard(self) -> int:
        """Requests of the largest shard, when nothing is stored yet."""
        return math.ceil(self.tickers / self.shards) * self.requests_per_ticker

    @property
    def shard_s(self) -> float:
        """Time in which one shard is fetched: by what is in flight, or by its share of the budget of requests."""
        ingest = self.deployment.settings.ingest
        in_flight_s = math.ceil(self.requests_per_shard / ingest.in_flight) * self.assumed.s_per_request
        budget_s = self.requests_per_shard * self.workers / ingest.rate_per_s if ingest.rate_per_s else 0.0
        return max(in_flight_s, budget_s)

    @property
    def ingest_s(self) -> float:
        """Time in which the fleet fetches all shards, as many at once as fit."""
        return math.ceil(self.shards / self.workers) * self.shard_s

    @property
    def journal_entries(self) -> int:
        """Objects of all shards that are read by a repetition alone, and deleted when it needs none."""
        every_s, tickers = self.deployment.settings.ingest.journal_s, math.ceil(self.tickers / self.shards)
        return self.shards * (min(tickers, int(self.shard_s / every_s)) if every_s else tickers)

    @property
    def ranks(self) -> int:
        """MPI ranks of a training job."""
        return self.deployment.training.instances * self.deployment.training.processes

    @property
    def sequences(self) -> int:
        """Training windows: whole sessions without those for validation and test."""
        dataset = self.deployment.settings.dataset
        days = max(1, self.sessions - dataset.validation_days - dataset.test_days)
        windows = max(1, self.assumed.session_min - dataset.window_min - max(dataset.horizons_min) + 1)
        return self.tickers * days * windows

    @property
    def training_s(self) -> float:
        """Time of all epochs."""
        speed = self.assumed.sequences_per_s * self.ranks * (self.assumed.rank_efficiency if self.ranks > 1 else 1)
        return self.deployment.settings.training.epochs * self.sequences / speed

    @property
    def serving_h(self) -> float:
        """Time in which one session is replayed."""
        return self.assumed.session_min / 60 / self.deployment.settings.serving.speed

    @property
    def nodes(self) -> int:
        """Of the cluster: the primary one and the others."""
        return 1 + self.deployment.inference.core_instances

    @property
    def polls_per_s(self) -> float:
        """How often the stream lists the tick objects."""
        trigger_s = self.deployment.settings.serving.trigger_s
        return min(self.assumed.polls_per_s, 1 / trigger_s) if trigger_s else self.assumed.polls_per_s

    @property
    def alarm_metrics(self) -> int:
        """Metrics that alarms watch."""
        return ALARM_METRICS + (not self.deployment.ingestion.managed)

    @property
    def stored_gb(self) -> float:
        """What lies in S3, rows counted uncompressed: at most so much."""
        minutes = self.assumed.sessions_kept * self.assumed.session_min
        bars = minutes * self.tickers * _row_bytes(contract.BARS)
        bars += self.assumed.sessions_kept * (_OBJECT_BYTES + self.tickers * _ANSWER_BYTES)
        made = self.tickers * len(self.deployment.settings.dataset.horizons_min)
        predictions = minutes * (made * _row_bytes(contract.PREDICTIONS) + _OBJECT_BYTES)
        features = self.rows * (_ROW_BYTES + _FEATURE_BYTES * len(contract.FEATURES))
        models = self.assumed.runs_kept * (features + _MODEL_BYTES)
        return (bars + predictions + models) / 1e9 + self.assumed.assets_gb


def _row_bytes(columns: tuple[contract.Column, ...]) -> int:
    return sum(_WIDTHS[column.arrow_type] for column in columns)
