"""Set this checkout up: everything `make run` and `make test` need, on a machine with Python, git, make and apt.

usage: python3 scripts/setup.py [--check | --with-browser]

In this order, each only where it is missing:
  1. a Python 3.11 or 3.12 is chosen: the one named by STOCKFLOW_PYTHON, or the first right one on PATH;
  2. system programs (Open MPI 4.1, Java, a C++ compiler, ...) are installed with apt-get, as root or through
     a sudo that asks no password; anyone else is told the command to type;
  3. uv, of the version pinned in scripts/uv-requirements.txt, goes into build/tools;
  4. the packages of uv.lock go into .venv;
  5. scripts/build_horovod.py builds Horovod, or takes it from its cache, and installs it into .venv.

When all is done the facts it rests on are stamped into build/.setup.json; while they hold, a call ends at once and
prints nothing. `--check` changes nothing, prints what is missing, and exits with 1 when anything is. `--with-browser`
also installs Chromium, in which the tests open the dashboard. It is no error when that cannot be had: they are skipped.

This file runs on any Python from 3.8 and needs only the standard library.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from machine import Interpreter, browser_need, choose_interpreter, find_lacks, install_programs, system_needs
from shell import StepError, open_mpi_version, output_of, run_logged, step

ROOT = Path(__file__).resolve().parent.parent
UV_SETTINGS = {"UV_PYTHON_DOWNLOADS": "never", "UV_PROJECT_ENVIRONMENT": ".venv", "VIRTUAL_ENV": ""}


# --- uv and the locked packages ---------------------------------------------------------------------------------------


def pinned_uv(root: Path) -> str:
    """The version of uv that scripts/uv-requirements.txt pins."""
    requirements = (root / "scripts" / "uv-requirements.txt").read_text(encoding="utf-8")
    found = re.search(r"^uv==(\S+)", requirements, flags=re.MULTILINE)
    if not found:
        raise StepError("scripts/uv-requirements.txt pins no uv.")
    return found.group(1)


def find_uv(root: Path) -> Path | None:
    """The uv of the pinned version in build/tools or on PATH."""
    pinned = pinned_uv(root)
    for candidate in (tool_uv(root), shutil.which("uv")):
        words = (output_of(str(candidate), "--version") or "").split() if candidate else []
        if words[:2] == ["uv", pinned]:
            return Path(str(candidate))
    return None


def tool_uv(root: Path) -> Path:
    """Where the checkout's uv is called from."""
    return root / "build" / "tools" / "bin" / "uv"


def provide_uv(root: Path, interpreter: Interpreter, log: Path) -> Path:
    """Make build/tools/bin/uv the pinned uv: a link to the one on PATH, or one installed by pip with its hashes."""
    found, uv = find_uv(root), tool_uv(root)
    if found == uv:
        return uv
    tools = uv.parent.parent
    shutil.rmtree(tools, ignore_errors=True)
    if found:
        uv.parent.mkdir(parents=True)
        uv.symlink_to(found)
        return uv
    with step(f"uv {pinned_uv(root)} into build/tools"):
        run_logged([interpreter.path, "-m", "venv", str(tools)], log, cwd=root)
        pip = [str(tools / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
        requirements = str(root / "scripts" / "uv-requirements.txt")
        run_logged([*pip, "--require-hashes", "-r", requirements], log, cwd=root, env={"PIP_USER": "0"})
    return uv


def sync_packages(root: Path, uv: Path, interpreter: Interpreter, log: Path) -> None:
    """Install the packages of uv.lock into .venv; Horovod, which the lock does not know, stays."""
    with step("the packages of uv.lock into .venv"):
        command = [str(uv), "sync", "--frozen", "--inexact", "--python", interpreter.path]
        run_logged(command, log, cwd=root, env=UV_SETTINGS)


# --- Horovod ----------------------------------------------------------------------------------------------------------


def provide_horovod(root: Path, uv: Path) -> None:
    """Let .venv's Python build and install Horovod for its TensorFlow."""
    command = [str(root / ".venv" / "bin" / "python"), str(root / "scripts" / "build_horovod.py"), "--uv", str(uv)]
    if subprocess.run(command, cwd=root, env={**os.environ, **UV_SETTINGS}, check=False).returncode != 0:
        raise StepError("Horovod could not be set up; the lines above say why.")


def horovod_libraries(root: Path) -> list[Path]:
    """Horovod's compiled libraries in .venv."""
    return sorted(root.glob(".venv/lib/python3.*/site-packages/horovod/tensorflow/mpi_lib*.so"))


# --- the stamp --------------------------------------------------------------------------------------------------------


def fingerprint(root: Path, *facts: str) -> str:
    """A digest of the files that decide the set-up, of where the checkout lies, and of the given `facts`."""
    digest = hashlib.sha256(json.dumps([str(root), *facts]).encode())
    scripts = (path for path in (root / "scripts").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    for path in (root / "pyproject.toml", root / "uv.lock", *sorted(scripts)):
        content = path.read_bytes()
        digest.update(f"\n{path.relative_to(root)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def stamp_path(root: Path) -> Path:
    """Where the stamp lies."""
    return root / "build" / ".setup.json"


def is_current(root: Path, requested: str) -> bool:
    """Whether the stamp's facts still hold and the programs it names are still there."""
    try:
        stamp = json.loads(stamp_path(root).read_text(encoding="utf-8"))
        facts = (requested, stamp["interpreter"], open_mpi_version() or "")
        return all(map(os.path.exists, stamp["files"])) and stamp["fingerprint"] == fingerprint(root, *facts)
    except (OSError, ValueError, KeyError, TypeError):  # no stamp, or not one of ours
        return False


def write_stamp(root: Path, requested: str, interpreter: Interpreter) -> None:
    """Record that the set-up is done, and for what."""
    files = [root / ".venv" / "bin" / "python", root / ".venv" / "bin" / "stockflow", tool_uv(root)]
    stamp = {
        "fingerprint": fingerprint(root, requested, str(interpreter), open_mpi_version() or ""),
        "interpreter": str(interpreter),
        "files": [str(path) for path in (*files, *horovod_libraries(root))],
    }
    path = stamp_path(root)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
    scratch.replace(path)


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Hold the lock of this checkout's set-up, waiting for whoever holds it now."""
    path = root / "build" / ".setup.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("setup: waiting for another set-up of this checkout to end", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- all together -----------------------------------------------------------------------------------------------------


def set_up(root: Path, requested: str) -> None:
    """Do all steps and write the stamp."""
    interpreter = choose_interpreter(requested)
    print(f"setup: using {interpreter}", flush=True)
    logs = root / "build" / "logs"
    install_programs(system_needs(interpreter, with_venv=find_uv(root) is None), logs / "apt.log")
    uv = provide_uv(root, interpreter, logs / "uv.log")
    sync_packages(root, uv, interpreter, logs / "uv.log")
    provide_horovod(root, uv)
    write_stamp(root, requested, interpreter)


def provide_browser(root: Path) -> None:
    """Install Chromium where that is possible."""
    try:
        install_programs([browser_need()], root / "build" / "logs" / "apt.log")
    except StepError:
        print("setup: without Chromium the tests of the dashboard's page are skipped (apt-get install chromium)")


def find_missing(root: Path, requested: str) -> list[str]:
    """What a set-up would have to provide, in words."""
    try:
        interpreter = choose_interpreter(requested)
    except StepError as exc:
        return [str(exc)]
    uv = find_uv(root)
    missing = [str(lack) for lack in find_lacks(system_needs(interpreter, with_venv=uv is None))]
    if uv is None:
        missing.append(f"uv {pinned_uv(root)}")
    if not (root / ".venv" / "bin" / "stockflow").exists():
        missing.append("the packages of uv.lock in .venv")
    if not horovod_libraries(root):
        missing.append("Horovod in .venv")
    if not missing and not is_current(root, requested):
        missing.append("a set-up since uv.lock, pyproject.toml, scripts/, Python or Open MPI last changed")
    return missing


def main(arguments: Sequence[str]) -> int:
    """Run the command line; the exit status."""
    requested = os.environ.get("STOCKFLOW_PYTHON", "")
    if list(arguments) not in ([], ["--check"], ["--with-browser"]):
        print(__doc__)
        return 2
    try:
        if "--check" in arguments:
            missing = find_missing(ROOT, requested)
            print("\n".join(f"missing: {thing}" for thing in missing) or "nothing is missing")
            return 1 if missing else 0
        if not is_current(ROOT, requested):
            with only_one(ROOT):
                if not is_current(ROOT, requested):
                    set_up(ROOT, requested)
        if "--with-browser" in arguments:
            provide_browser(ROOT)
    except StepError as exc:
        print(f"setup: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
