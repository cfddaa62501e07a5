"""Build Horovod for the TensorFlow of the Python that runs this file, and install it there.

usage: .venv/bin/python scripts/build_horovod.py --uv PATH [--gpu-operations NCCL --cuda-capabilities 75,90]

Horovod's last release does not build on today's TensorFlow as it is; the patches under scripts/patches say why. The
build has MPI and TensorFlow only (no Gloo, PyTorch or MXNet), and NCCL where it is asked for: then CUDA's compiler must
be on PATH, a TensorFlow for GPUs installed, and HOROVOD_NCCL_HOME may say where NCCL lies; a GPU is not needed. It runs
in an environment of its own, with the tools of scripts/horovod-build-requirements.txt, that also sees the packages of
the calling Python: TensorFlow, and what Horovod imports at run time.

The wheel is kept in ${STOCKFLOW_CACHE_DIR:-${XDG_CACHE_HOME:-~/.cache}/stockflow}/horovod/<key>/, where the key is
made of all that the wheel depends on, so that other checkouts and later set-ups need no build. A kept wheel that does
not work is built once more. Exits with 1 and the end of the log when there is no working Horovod at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

from shell import StepError, open_mpi_version, output_of, run_logged, step

ROOT = Path(__file__).resolve().parent.parent
HOROVOD = "0.28.1"
SDIST_SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"
PATCH = ROOT / "scripts" / "patches" / f"horovod-{HOROVOD}-no-xla-ops.patch"
WAKE_PATCH = ROOT / "scripts" / "patches" / f"horovod-{HOROVOD}-wake-on-request.patch"
GPU_PATCH = ROOT / "scripts" / "patches" / f"horovod-{HOROVOD}-gpu-stream.patch"
BUILD_REQUIREMENTS = ROOT / "scripts" / "horovod-build-requirements.txt"
LOG = ROOT / "build" / "logs" / "horovod.log"
GIB_PER_COMPILER = 2  # TensorFlow's headers take g++ to about 1 GiB
CHECK = "import horovod.tensorflow as hvd, sys; sys.exit(0 if hvd.{0}_built() else 'Horovod was built without {0}')"
OPTIONS = {
    "HOROVOD_WITH_TENSORFLOW": "1",
    "HOROVOD_WITH_MPI": "1",
    "HOROVOD_WITHOUT_GLOO": "1",
    "HOROVOD_WITHOUT_PYTORCH": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
}


@dataclass(frozen=True)
class Gpu:
    """What a build with NCCL is for: the release of CUDA ("12.9"), and compute capabilities of GPUs ("75,90")."""

    cuda: str
    capabilities: str

    @property
    def options(self) -> dict[str, str]:
        """Horovod's own options for it."""
        return {
            "HOROVOD_GPU_OPERATIONS": "NCCL",
            "HOROVOD_NCCL_LINK": "SHARED",  # NCCL's wheel has no static library
            "HOROVOD_WITHOUT_NVTX": "1",
            "HOROVOD_BUILD_CUDA_CC_LIST": self.capabilities,
        }


@dataclass(frozen=True)
class WheelKey:
    """All that a built wheel depends on."""

    sdist_sha256: str
    patch_sha256: str
    tensorflow: str
    open_mpi: str
    python_abi: str
    machine: str
    gpu: str = ""

    @property
    def folder(self) -> str:
        """The name of the cache folder: the parts a person looks for, then a digest over all parts."""
        digest = hashlib.sha256("\n".join(filter(None, astuple(self))).encode()).hexdigest()[:12]
        return f"{HOROVOD}-tf{self.tensorflow}-ompi{self.open_mpi}-{self.python_abi}-{digest}"


def patches_for(gpu: Gpu | None) -> tuple[Path, ...]:
    """The patches that a build takes."""
    return (PATCH, WAKE_PATCH) if gpu is None else (PATCH, WAKE_PATCH, GPU_PATCH)


def find_gpu(capabilities: str) -> Gpu:
    """The build for GPUs of these `capabilities` with the CUDA compiler on PATH; StepError without one."""
    found = re.search(r"release (\d+\.\d+)", output_of("nvcc", "--version") or "")
    if not found:
        raise StepError("no nvcc on PATH, which --gpu-operations NCCL needs; leave that option out to build for CPUs.")
    return Gpu(found.group(1), capabilities)


def current_key(gpu: Gpu | None = None) -> WheelKey:
    """The key for this interpreter, its TensorFlow, the Open MPI on PATH, and `gpu`."""
    open_mpi = open_mpi_version()
    if open_mpi is None:
        raise StepError("no Open MPI's mpirun on PATH; `python3 scripts/setup.py` installs it.")
    return WheelKey(
        sdist_sha256=SDIST_SHA256,
        patch_sha256=hashlib.sha256(b"".join(patch.read_bytes() for patch in patches_for(gpu))).hexdigest(),
        tensorflow=tensorflow_version(),
        open_mpi=open_mpi,
        python_abi=str(sysconfig.get_config_var("SOABI")),
        machine=platform.machine(),
        gpu=f"NCCL, CUDA {gpu.cuda}, {gpu.capabilities}" if gpu else "",
    )


def tensorflow_version() -> str:
    """The version of the TensorFlow installed beside this interpreter, under any of the names it is published as."""
    for name in ("tensorflow-cpu", "tensorflow"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise StepError(f"{sys.executable} has no TensorFlow; `python3 scripts/setup.py` installs it.")


def cache_root(environ: Mapping[str, str]) -> Path:
    """The folder of stockflow's caches that `environ` asks for."""
    if environ.get("STOCKFLOW_CACHE_DIR"):
        return Path(environ["STOCKFLOW_CACHE_DIR"]).expanduser().absolute()
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "stockflow"


def cached_wheel(folder: Path) -> Path | None:
    """The wheel in a cache folder, if it is there."""
    return next(iter(sorted(folder.glob("horovod-*.whl"))), None)


def build_wheel(uv: Path, gpu: Gpu | None, folder: Path) -> Path:
    """Build the wheel into the cache folder `folder`, which appears only once it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    LOG.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as scratch_name:
        scratch = Path(scratch_name)
        python = make_build_environment(uv, scratch / "venv")
        source = fetch_source(python, scratch)
        for patch in patches_for(gpu):
            apply_patch(patch, source)
        done = scratch / "done"
        command = [str(python), "-m", "pip", "wheel", "-v", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
        tools = {"MAKEFLAGS": f"-j{build_jobs()}", "HOROVOD_CMAKE": str(python.with_name("cmake"))}
        environment = {**OPTIONS, **tools, **(gpu.options if gpu else {})}
        run_logged([*command, "-w", str(done), str(source)], LOG, cwd=scratch, env=environment)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            done.replace(folder)
        except OSError as exc:
            if cached_wheel(folder) is None:  # else another checkout has just put its own there
                raise StepError(f"the wheel of Horovod cannot be put into {folder}: {exc}") from exc
    wheel = cached_wheel(folder)
    if wheel is None:
        raise StepError(f"the build of Horovod left no wheel in {folder}; its log is {LOG}")
    return wheel


def make_build_environment(uv: Path, venv: Path) -> Path:
    """Make an environment with the pinned build tools first and this interpreter's packages after them; its Python."""
    run_logged([str(uv), "venv", "--python", sys.executable, str(venv)], LOG, cwd=venv.parent)
    python = venv / "bin" / "python"
    install = [str(uv), "pip", "install", "--python", str(python), "--require-hashes", "-r", str(BUILD_REQUIREMENTS)]
    run_logged(install, LOG, cwd=venv.parent)
    site = next(venv.glob("lib/python3.*/site-packages"))
    (site / "calling_python.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


def fetch_source(python: Path, scratch: Path) -> Path:
    """Download the source archive with pip, which checks its hash, and unpack it; the unpacked folder."""
    requirement = scratch / "horovod.txt"
    requirement.write_text(f"horovod=={HOROVOD} --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
    command = [str(python), "-m", "pip", "download", "--no-deps", "--no-binary", "horovod", "--no-build-isolation"]
    run_logged([*command, "--require-hashes", "-r", str(requirement), "-d", str(scratch)], LOG, cwd=scratch)
    with tarfile.open(scratch / f"horovod-{HOROVOD}.tar.gz") as archive:
        # Debian 12's Python 3.11.2 has no filters yet; what is unpacked is known by its hash
        if hasattr(tarfile, "data_filter"):
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(scratch)  # noqa: S202  see above
    return scratch / f"horovod-{HOROVOD}"


def apply_patch(patch: Path, source: Path) -> None:
    """Apply `patch` to the folder `source`; raises StepError when it does not fit.

    git must not see a repository around the folder: there it would skip, without an error, files that are not of the
    repository's current folder. Nor may a user's git settings change how it applies.
    """
    environment = {
        "GIT_CEILING_DIRECTORIES": str(source.resolve().parent),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    run_logged(["git", "apply", "--verbose", str(patch.resolve())], LOG, cwd=source, env=environment)


def build_jobs() -> int:
    """How many compilers may run at once: one for each core, as far as the memory goes."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return max(1, min(len(os.sched_getaffinity(0)), int(memory_gib / GIB_PER_COMPILER)))


def install_wheel(uv: Path, gpu: Gpu | None, wheel: Path) -> None:
    """Install the wheel beside this interpreter and check that it imports and speaks MPI, and NCCL where asked for."""
    install = [str(uv), "pip", "install", "--python", sys.executable, "--no-deps", "--reinstall", str(wheel)]
    run_logged(install, LOG, cwd=ROOT)
    for part in ("mpi", "nccl") if gpu else ("mpi",):
        run_logged([sys.executable, "-c", CHECK.format(part)], LOG, cwd=ROOT)


def provide_horovod(
    key: WheelKey, cache: Path, *, build: Callable[[Path], Path], install: Callable[[Path], None]
) -> None:
    """Install Horovod from `cache`, building it where the cache has none or has one that does not work.

    build: builds the wheel into a folder and returns it; install: installs a wheel, StepError when it does not work.
    """
    folder = cache / "horovod" / key.folder
    kept = cached_wheel(folder)
    if kept is not None:
        try:
            with step(f"Horovod {HOROVOD} from {folder}"):
                install(kept)
            return
        except StepError:
            print("setup: that wheel does not work here; building it again", flush=True)
    with step(f"building Horovod {HOROVOD} for TensorFlow {key.tensorflow} (a few minutes, kept in {folder.parent})"):
        built = build(folder)
    with step("checking Horovod"):
        install(built)


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description="Build Horovod for this Python's TensorFlow and install it there.")
    parser.add_argument("--uv", type=Path, required=True, help="the uv program to install with")
    parser.add_argument("--gpu-operations", choices=("", "NCCL"), default="", help="what averages on GPUs")
    parser.add_argument("--cuda-capabilities", default="75,80,86,89,90", help="the GPUs to compile for")
    asked = parser.parse_args()
    uv = asked.uv.absolute()
    try:
        gpu = find_gpu(asked.cuda_capabilities) if asked.gpu_operations else None
        build, install = partial(build_wheel, uv, gpu), partial(install_wheel, uv, gpu)
        provide_horovod(current_key(gpu), cache_root(os.environ), build=build, install=install)
    except StepError as exc:
        print(f"setup: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
