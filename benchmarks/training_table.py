"""The training benchmark's figures as text, and the original's tables beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.scaling.cases import Row, efficiency, speedup
from app.scaling.original import EPOCH_SEQUENCES, training_rows
from benchmarks.table import goal_lines
from benchmarks.training_options import ARMS
from benchmarks.verdict import Goal


def training_lines(figures: Mapping[str, Any], ours: Sequence[Row], goals: Sequence[Goal]) -> Iterator[str]:
    """All that the benchmark prints at its end, line by line."""
    yield f"the original, {EPOCH_SEQUENCES:,} sequences in an epoch, on M60 GPUs:"
    yield from _case_lines(training_rows())
    yield ""
    yield f"here, {figures['machine']['cores']} CPU cores, an epoch of as many sequences:"
    yield from _case_lines(ours)
    yield ""
    yield from _row_lines(figures)
    yield from (f"  {arm}: skipped: {reason}" for arm, reason in figures["skipped"].items())
    yield ""
    yield from _efficiency_lines(figures)
    yield ""
    yield from _fact_lines(figures)
    yield ""
    yield from goal_lines(goals)
    yield from (f"WRONG: {what}" for what in figures["wrong"])


def _case_lines(rows: Sequence[Row]) -> Iterator[str]:
    heads = ("nodes x ranks", "batch a rank", "s/epoch", "s/step", "sequences/s", "speed-up", "efficiency")
    yield "  " + "".join(f"{head:>14}" for head in heads)
    for row in rows:
        times, case = row.times, row.case
        if times is None:
            continue
        faster, share = speedup(row, rows), efficiency(row, rows)
        yield (
            f"  {f'{case.nodes} x {case.gpus}':>14}{case.batch:>14}{times.s_per_epoch:>14.1f}{times.s_per_step:>14.4f}"
            f"{times.sequences_per_s:>14,.0f}{_or_dash(faster, '.2f'):>14}{_or_dash(share, '.0%'):>14}"
        )


def _row_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    settings = figures["settings"]
    yield (
        f"{settings['rounds']} rounds, {settings['sequences']:,} sequences timed in each process after warm-up;"
        " medians; start-up and the first step, which compiles, are apart:"
    )
    heads = ("batch", "sequences/s", "min", "max", "CPU us each", "cores busy", "start-up s", "first step s")
    yield f"  {'':<62}" + "".join(f"{head:>13}" for head in heads)
    for row in figures["rows"]:
        rate = row["sequences_per_s"]
        values = (f"{row['batch']}", f"{rate['median']:,.0f}", f"{rate['min']:,.0f}", f"{rate['max']:,.0f}")
        own = (row["cpu_us_per_sequence"], row["cores_busy"], row["startup_s"], row["compile_s"])
        more = (f"{one['median']:.{digits}f}" for one, digits in zip(own, (1, 2, 1, 1), strict=True))
        yield f"  {ARMS[row['arm']].note:<62}" + "".join(f"{value:>13}" for value in (*values, *more))


def _efficiency_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    yield "weak scaling: two ranks against two trainings of their own, begun together, sequences/s:"
    for one in figures["weak_scaling"]:
        yield (
            f"  batch {one['batch']} a rank: {_or_dash(one['independent'], ',.0f')} apart,"
            f" {_or_dash(one['ranks'], ',.0f')} as ranks: {_share(one['efficiency'])}"
        )
    yield "strong scaling: two ranks with half the batch each against one with all of it, sequences/s:"
    for one in figures["strong_scaling"]:
        yield (
            f"  batch {one['batch']} in all: {_or_dash(one['one_rank'], ',.0f')} by one,"
            f" {_or_dash(one['ranks'], ',.0f')} by two: {_share(one['efficiency'])}"
        )


def _share(found: Mapping[str, Any] | None) -> str:
    return f"{found['median']:.3f} ({found['min']:.3f} to {found['max']:.3f})" if found else "not measured"


def _fact_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    rates = figures["sequences_per_s"]
    if figures["sgemm_share"] is not None:
        yield (
            f"one core multiplies at {figures['sgemm_gflops']['median']:.1f} GFLOP/s; a sequence takes"
            f" {figures['sequence_mflop']:.2f} MFLOP: 1 rank reaches {figures['sgemm_share']:.1%} of that limit"
        )
    for name, other in (("keras.fit", "keras_fit"), ("PyTorch", "torch")):
        for threads, arm in ((1, other), (2, f"{other}_2_threads")):
            if rates["ours_1_rank"] and rates[arm]:
                yield f"1 rank with 1 thread over {name} with {threads}: {rates['ours_1_rank'] / rates[arm]:.2f}x"
    if rates["ours_2_ranks"] and rates["torch_ddp"]:
        yield f"2 ranks over PyTorch's DDP with 2 processes: {rates['ours_2_ranks'] / rates['torch_ddp']:.2f}x"
    versions = ", ".join(" ".join(one) for one in figures["versions"].items())
    yield f"load when it began {figures['machine']['load']:g}; {versions}"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
