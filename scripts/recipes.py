"""The recipes under docker/: what stands in for their base images, and what must be true of what they make."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from debian_root import PATH
from setup import ROOT, pinned_uv


@dataclass(frozen=True)
class Recipe:
    """One Dockerfile, and how to try it.

    base_has: shell commands that give the stand-in what the recipe expects of its base image, with base_environment
    set; arguments: values for ARGs, where the stand-in needs others than the default; checks: shell commands that the
    image's user runs at the end.
    """

    name: str
    dockerfile: str
    checks: tuple[str, ...]
    base_has: tuple[str, ...] = ()
    base_environment: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)


def locked_version(package: str, lock: Path = ROOT / "uv.lock") -> str:
    """The version of `package` in uv.lock, the first if there are several."""
    found = re.search(rf'^name = "{re.escape(package)}"\nversion = "(\S+)"', lock.read_text(encoding="utf-8"), re.M)
    if not found:
        raise LookupError(f"{lock} has no {package}")
    return found.group(1)


# --- ingest -----------------------------------------------------------------------------------------------------------

INGEST = Recipe(
    name="ingest",
    dockerfile="docker/ingest/Dockerfile",
    checks=(
        "stockflow --version",
        "stockflow ingest --help > /dev/null",
        "stockflow dataset --help > /dev/null",
        "stockflow feed --help > /dev/null",
        'python -c "import yfinance, app.ingest.run, app.dataset.run, app.serving.feed"',
        'python -c "import tensorflow" 2>&1 | grep -q "No module named \'tensorflow\'"',
        'test "$(id -u):$(id -g)" = 10001:10001 && touch ~/x /tmp/x && ! touch /opt/stockflow/x 2> /dev/null',
        "for program in gcc g++ cc make git pip uv; do ! command -v $program || exit 1; done",
        "test -z \"$(find / -xdev '(' -path '*/.cache/*' -o -path '/var/lib/apt/lists/*_*' ')' -type f 2> /dev/null)\"",
    ),
)

# --- training ---------------------------------------------------------------------------------------------------------

# AWS's image has CUDA 12.9, of which PyPI has all but the compiler: that begins with 13.0, which no longer compiles for
# a V100 (7.0). Its Python is 3.12, Debian's is 3.11.
CUDA = "cuda-toolkit[nvcc,cudart,cccl]==13.0.3"
TOOLKIT = (
    f"sagemaker-training=={locked_version('sagemaker-training')} mpi4py=={locked_version('mpi4py')}"
    " sagemaker-tensorflow-training==20.4.1"
)
PYTHON_IMAGE = "/opt/venv"

AWS_IMAGE_HAS = (
    "apt-get update -q"
    " && apt-get install -qy --no-install-recommends"
    " ca-certificates g++ git libopenmpi-dev make openmpi-bin openssh-server python3.11-dev python3.11-venv",
    f"python3.11 -m venv {PYTHON_IMAGE} && pip install -q --no-cache-dir uv=={pinned_uv(ROOT)}",
    f"uv pip install -q --no-cache --python {PYTHON_IMAGE}"
    f" tensorflow=={locked_version('tensorflow-cpu')} 'numpy<2.5' 'keras>=3.15' nvidia-nccl-cu12==2.30.7 {TOOLKIT}",
    f"uv pip install -q --no-cache --python {PYTHON_IMAGE} --target /opt/cuda '{CUDA}'"
    " && mv /opt/cuda/nvidia/cu13 /usr/local/cuda && rm -r /opt/cuda"
    " && cd /usr/local/cuda && ln -s lib lib64 && ln -s libcudart.so.13 lib/libcudart.so"
    f" && cp -l {PYTHON_IMAGE}/lib/python3.11/site-packages/nvidia/nccl/include/*.h include/"
    f" && cp -l {PYTHON_IMAGE}/lib/python3.11/site-packages/nvidia/nccl/lib/libnccl.so.2 lib/",
)

RANK = """
import importlib.metadata as installed
import horovod.tensorflow as hvd, numpy as np, tensorflow as tf
import app.training.worker
from app.settings import Settings
from app.training.export import export_model
from app.training.model import build_model
hvd.init()
assert hvd.nccl_built() and hvd.mpi_built() and hvd.size() == 2, hvd.size()
assert float(hvd.allreduce(tf.constant(hvd.rank() + 1.0), op=hvd.Sum)) == 3.0
assert not [d for d in installed.distributions() if d.name == "tensorflow-cpu"]
if hvd.rank() == 0:
    export_model(build_model(8, 5, Settings().training), np.ones((4, 8, 5), np.float32))
hvd.allreduce(tf.constant(0.0))
print("rank", hvd.rank(), "NCCL", hvd.nccl_built(), "TensorFlow", tf.__version__, "numpy", np.__version__)
"""

TRAINING = Recipe(
    name="training",
    dockerfile="docker/training/Dockerfile",
    base_has=AWS_IMAGE_HAS,
    base_environment={
        "PATH": f"{PYTHON_IMAGE}/bin:/usr/local/cuda/bin:{PATH}",
        "LD_LIBRARY_PATH": "/usr/local/cuda/lib64",
    },
    arguments={"CUDA_CAPABILITIES": "90"},
    checks=(
        f"cat > /tmp/rank.py <<'END'{RANK}END",
        # as the toolkit starts it, but for the options of its own network
        "mpirun --allow-run-as-root --oversubscribe --bind-to none -np 2 python -m mpi4py /tmp/rank.py",
        'python -c "import sagemaker_training.mpi, sagemaker_tensorflow_container.training" && command -v train',
        'python -m py_compile "/opt/ml/code/$SAGEMAKER_PROGRAM"',
        # what a node of a Batch job needs
        "command -v ssh && command -v ssh-keygen && test -x /usr/sbin/sshd",
        'python -c "import app.training.batch_node"',
    ),
)

RECIPES = {recipe.name: recipe for recipe in (INGEST, TRAINING)}
