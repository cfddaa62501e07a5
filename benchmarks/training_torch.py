"""PyTorch's arms: `nn.LSTM`, alone or data-parallel. `python -m benchmarks.training_torch JOB`.

Runs in an environment of its own, which holds torch and NumPy and nothing of this project but `benchmarks`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from benchmarks.training_data import FEATURES, make_data
from benchmarks.training_job import WARM_STEPS, TrainingJob, Watch


class OriginalModel(nn.Module):  # type: ignore[misc]
    """The 2021 system's network."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, 50, batch_first=True)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(50, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, inputs: Any) -> Any:
        """Inputs (batch, 60, 2); returns (batch,)."""
        hidden, _ = self.lstm(inputs)
        return self.head(hidden[:, -1]).squeeze(-1)


def main(arguments: list[str]) -> int:
    """Train as the job says."""
    job = TrainingJob.read(arguments[0])
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    watch = Watch(job)
    data = make_data(job.windows, job.seed)
    mine = slice(job.number if job.ranks > 1 else 0, None, job.ranks)
    inputs, targets = torch.from_numpy(data.materialised()[mine]), torch.from_numpy(data.targets[mine])
    model: Any = OriginalModel()
    if job.ranks > 1:
        place = Path(job.folder, "gloo").as_uri()
        distributed.init_process_group("gloo", init_method=place, rank=job.number, world_size=job.ranks)
        model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    loss_of = nn.MSELoss()
    order = torch.randperm(len(inputs))

    def train(steps: int) -> float:
        loss = torch.zeros(())
        for chosen in _batches(order, job.batch, steps):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(model(inputs[chosen]), targets[chosen])
            loss.backward()
            optimizer.step()
        return float(loss)

    watch.ready()
    train(1)
    watch.compiled()
    train(WARM_STEPS)
    watch.begin()
    loss = train(job.steps)
    watch.end()
    watch.write(loss, {"torch": torch.__version__})
    if job.ranks > 1:
        distributed.destroy_process_group()
    return 0


def _batches(order: Any, batch: int, steps: int) -> Iterator[Any]:
    by_epoch = len(order) // batch
    for step in range(steps):
        first = step % by_epoch * batch
        yield order[first : first + batch]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
