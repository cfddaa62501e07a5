"""How the training toolkit starts a script: once, or under mpirun over all hosts of the job.

All ranks run on this machine, so mpirun needs no SSH, and its local rank counts all of them. As on AWS, ranks on other
hosts than the first find neither the job's variables nor its credentials: the toolkit hands them only its own.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from app.processes import find_program
from embedded.aws.images import Image
from embedded.aws.training.data import JobFault
from embedded.aws.training.toolkit import CODE, INTERFACE, Parameters

_PROGRAM = "sagemaker_program"
_OF_ROLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def find_script(image: Image, environ: Mapping[str, str], parameters: Parameters) -> tuple[str, Path]:
    """The name of the program that the toolkit starts, and the file in the checkout. Raises JobFault."""
    name = environ.get(_PROGRAM.upper()) or parameters.toolkit.get(_PROGRAM)
    if not name:
        raise JobFault(f"ClientError: neither the image nor the job says which program trains: set {_PROGRAM.upper()}")
    script = image.file(f"{CODE}/{name}")
    if script is None or not script.is_file():
        raise JobFault(f"ClientError: {CODE}/{name} is not in the image: no COPY of its Dockerfile puts it there")
    return str(name), script


def script_command(script: Path, arguments: Sequence[str], *, mpi: bool = False) -> list[str]:
    """How the script is started; a Python one under MPI with mpi4py, where that is installed, as on AWS.

    mpi4py makes an exception of one rank end all of them at once.
    """
    if script.suffix != ".py":
        return ["/bin/sh", str(script), *arguments]
    return [sys.executable, *(["-m", "mpi4py"] if mpi and _has_mpi4py() else []), str(script), *arguments]


def mpi_command(
    script: Sequence[str], ranks_per_host: int, environs: Sequence[Mapping[str, str]], own: Iterable[str], options: str
) -> list[str]:
    """mpirun over all hosts. environs: SM_ variables of each host; own: names that only the first one has.

    options: sagemaker_mpi_custom_mpi_options. Raises MissingProgram without mpirun.
    """
    command = [find_program("mpirun", "openmpi-bin"), "--allow-run-as-root", "--tag-output"]
    command += ["--oversubscribe", "--bind-to", "none"]  # more ranks than cores; without order between jobs
    command += ["--mca", "mpi_yield_when_idle", "1"]  # idle ranks would poll
    command += ["--mca", "btl_vader_single_copy_mechanism", "none"]  # containers forbid cross-memory attach
    for layer in ("btl", "oob"):
        command += ["--mca", f"{layer}_tcp_if_include", INTERFACE]
    command += _mpi_options(options)
    hidden = [f"--unset={name}" for name in (*_OF_ROLES, *own)]
    for number, environ in enumerate(environs):
        folders = [f"{name}={text}" for name, text in environ.items() if text != environs[0][name]]
        here = ["env", *hidden, *folders] if number else []
        command += [*([":"] if number else []), "-np", str(ranks_per_host), *_ends_with_mpirun(), *here, *script]
    return command


def _ends_with_mpirun() -> list[str]:
    """mpirun's ranks are in process groups of their own, which nobody ends when it is killed."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _mpi_options(text: str) -> list[str]:
    """What is left for mpirun: the toolkit takes ``--NCCL_DEBUG`` for itself."""
    words, options = iter(text.split()), []
    for word in words:
        if word == "--NCCL_DEBUG":
            options += ["-x", f"NCCL_DEBUG={next(words, 'INFO')}"]
        elif word.startswith("--NCCL_DEBUG="):
            options += ["-x", word.removeprefix("--")]
        else:
            options.append(word)
    return options


def _has_mpi4py() -> bool:
    return importlib.util.find_spec("mpi4py") is not None
