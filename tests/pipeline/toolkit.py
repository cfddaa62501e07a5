"""AWS's own training toolkit on this machine: namespaces of mounts and processes stand in for the container."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedded.aws.training.toolkit import OptMl, resource_config

ROOT = Path(__file__).parents[2]
ALONE = ("unshare", "--mount", "--propagation", "private", "--pid", "--mount-proc", "--fork", "--kill-child")
_ENTER = """
set -e
# In the place of a folder: another one that has its entries, and may be given more without touching the machine's.
stand_in() {
    mkdir -p "$TOP/machine$1" "$TOP/$1"
    mount --rbind "$1" "$TOP/machine$1"
    for entry in "$TOP/machine$1"/*; do ln -s "$entry" "$TOP/$1/"; done
    mount --bind "$TOP/$1" "$1"
}
stand_in /usr/sbin
stand_in /opt
# With one host nobody connects to it, and a machine's own would open a port.
rm -f /usr/sbin/sshd
printf '#!/bin/sh\\nexec sleep infinity\\n' > /usr/sbin/sshd
chmod +x /usr/sbin/sshd
exec "$@"
"""


@dataclass(frozen=True)
class Ended:
    """How a job ended: what the toolkit left in /opt/ml/output, `success` or `failure`, and all that was printed."""

    status: int
    files: Mapping[str, str]
    log: str


@dataclass(frozen=True)
class Toolkit:
    """programs: folder of the environment's programs; alone: what gives a command mounts of its own."""

    programs: Path
    alone: tuple[str, ...]

    def place(self, top: Path) -> OptMl:
        """What a job in the folder `top` sees as /opt/ml."""
        return OptMl(top / "opt" / "ml")

    def train(self, top: Path, script: Path, hyperparameters: Mapping[str, str], environ: Mapping[str, str]) -> Ended:
        """Run a job as SageMaker runs its container: one host, and the channels that lie in place(top).data."""
        place = self.place(top)
        channels = [channel.name for channel in place.data.iterdir()] if place.data.is_dir() else []
        described = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
        files: dict[str, Any] = {
            "hyperparameters": hyperparameters,
            "inputdataconfig": dict.fromkeys(channels, described),
        }
        files["resourceconfig"] = resource_config("localhost", ["localhost"], "ml.c5.large")
        for folder in (place.model, place.config, place.output_data, place.root / "code"):
            folder.mkdir(parents=True)
        for name, content in files.items():
            (place.config / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        shutil.copy(script, place.root / "code")
        done = subprocess.run(
            [*self.alone, "sh", "-c", _ENTER, "sh", str(self.programs / "train")],
            env={
                **environ,
                "PATH": f"{self.programs}:{environ['PATH']}",
                "TOP": str(top),
                "SAGEMAKER_PROGRAM": script.name,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=280,
        )
        said = {path.name: path.read_text(encoding="utf-8") for path in place.output.iterdir() if path.is_file()}
        return Ended(done.returncode, said, done.stdout)


def find_toolkit() -> Toolkit | str:
    """The toolkit, made ready; or why it cannot run here."""
    users = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    alone = (*ALONE, *users)
    try:
        tried = subprocess.run([*alone, "mount", "--bind", "/opt", "/opt"], capture_output=True, text=True, check=False)
    except OSError as exc:
        return f"there is no unshare: {exc}"
    if tried.returncode:
        return f"a process may not have mounts of its own here: {tried.stderr.strip()}"
    script = str(ROOT / "scripts" / "build_toolkit.py")
    made = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"its environment cannot be made: {made.stderr.strip()}"
    return Toolkit(Path(made.stdout.strip()), alone)
