"""The contract: where objects lie, in which order keys stand, and what the module may import."""

from __future__ import annotations

import ast
import sys
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import contract, errors
from app.sessions import market_day, utc

DAY = date(2025, 11, 28)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (contract.bars_key(DAY, "r-0001-of-0002-ab"), "bars/dt=2025-11-28/r-0001-of-0002-ab.parquet"),
        (contract.bars_key(DAY, contract.compact_part("0a1b")), "bars/dt=2025-11-28/compact-0a1b.parquet"),
        (contract.answers_key(DAY, contract.compact_part("0a1b")), "answers/dt=2025-11-28/compact-0a1b.json"),
        (contract.shard_part("r", "0001-of-0002-ab", "0a1b"), "r-0001-of-0002-ab-0a1b"),
        (contract.ticks_key("r", DAY, 1764340200000, 7), "ticks/r/dt=2025-11-28/1764340200000-000007.parquet"),
        (contract.plan_key("r"), "runs/r/plan.json"),
        (contract.journal_key("r", "s", 7), "runs/r/journal/s/000007.parquet"),
        (contract.manifest_key("r", "s"), "runs/r/manifests/s.json"),
        (contract.coverage_key("r"), "runs/r/coverage.json"),
        (contract.feed_end_key("r"), "runs/r/feed.json"),
        (contract.warm_state_key("r"), "runs/r/warm.arrow"),
        (contract.result_key("r", "train"), "runs/r/results/train.json"),
        (contract.dataset_key("r", "test"), "datasets/r/test.parquet"),
        (contract.dataset_spec_key("r"), "datasets/r/spec.json"),
        (contract.model_key("m", contract.MODEL_ONNX), "models/m/model.onnx"),
        (contract.checkpoint_key("m", 12), "models/m/checkpoints/step-000000012.npz"),
        (contract.candidate_key("r"), "models/candidates/r.json"),
        (contract.begun_key("r"), "models/begun/r.json"),
        (contract.predictions_key(DAY, "r", 3), "predictions/dt=2025-11-28/r-00000003.parquet"),
    ],
)
def test_each_object_lies_where_the_contract_says(key: str, expected: str) -> None:
    assert key == expected


@given(st.lists(st.integers(946_684_800, 4_102_444_800), min_size=2, max_size=20, unique=True))
def test_tick_keys_ascend_with_time(instants: list[int]) -> None:
    keys = [contract.ticks_key("run", market_day(utc(ts)), ts * 1000, seq) for seq, ts in enumerate(sorted(instants))]
    assert all(earlier < later for earlier, later in pairwise(keys))
    assert all(key.startswith(contract.ticks_prefix("run")) for key in keys)


@pytest.mark.parametrize("part", ["compact-0a1b", "r-0001-of-0002-ab-0a1b", "v1.2-0001-of-0002-ab-0a1b"])
def test_keys_of_bars_and_answers_tell_their_part(part: str) -> None:
    assert contract.part_of(contract.bars_key(DAY, part)) == contract.part_of(contract.answers_key(DAY, part)) == part


@pytest.mark.parametrize("run_id", ["r", "compact", "compact-0a1b", "r-compact"])
def test_no_shard_of_any_run_writes_a_part_into_which_others_are_merged(run_id: str) -> None:
    assert contract.is_compact(contract.compact_part("0a1b"))
    assert not contract.is_compact(contract.shard_part(run_id, "0000-of-0001-0a1b2c3d", "0a1b"))


@given(st.lists(st.integers(0, 99_999), min_size=2, max_size=10, unique=True))
def test_journal_keys_ascend_within_the_prefix_of_their_shard(seqs: list[int]) -> None:
    keys = [contract.journal_key("r", "s", seq) for seq in sorted(seqs)]
    assert keys == sorted(keys)
    assert all(key.startswith(contract.journal_prefix("r", "s")) for key in keys)
    assert not contract.journal_key("r", "s2", 0).startswith(contract.journal_prefix("r", "s"))


@given(st.lists(st.integers(0, 10**9 - 1), min_size=2, max_size=10, unique=True))
def test_checkpoint_keys_ascend_and_name_their_step(steps: list[int]) -> None:
    keys = [contract.checkpoint_key("m-step-1", step) for step in sorted(steps)]
    assert keys == sorted(keys)
    assert [contract.checkpoint_step(key) for key in keys] == sorted(steps)
    assert all(key.startswith(contract.checkpoints_prefix("m-step-1")) for key in keys)


def test_the_pointer_lies_below_no_model() -> None:
    assert not contract.CURRENT_MODEL_KEY.startswith(contract.model_prefix("current"))


@pytest.mark.parametrize("module", [contract, errors])
def test_contract_and_errors_import_the_standard_library_alone(module: object) -> None:
    tree = ast.parse(Path(str(getattr(module, "__file__", ""))).read_text(encoding="utf-8"))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


@pytest.mark.parametrize("run_id", ["try", "try-1", "a.b-00000001"])
def test_a_predictions_key_tells_its_run(run_id: str) -> None:
    assert contract.predictions_run(contract.predictions_key(date(2025, 12, 5), run_id, 7)) == run_id
