"""Make an environment with AWS's training toolkit, as the training image has it: build/toolkit.

usage: .venv/bin/python scripts/build_toolkit.py

The packages are those of uv.lock's group `toolkit`; TensorFlow, Horovod and the rest are .venv's, which the new
environment sees after its own. Prints the folder that holds its programs, `train` among them. Does nothing when the
environment is there and the lock has not changed. Needs a network the first time, and a C compiler for the toolkit's
one extension. Exits with 1 and a message when it cannot be made.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import sysconfig
from pathlib import Path

from setup import ROOT, find_uv
from shell import StepError, run_logged

LOG = ROOT / "build" / "logs" / "toolkit.log"
BUILD_REQUIREMENTS = ROOT / "scripts" / "horovod-build-requirements.txt"
"""Its setuptools builds the toolkit too."""


def provide_toolkit(folder: Path, uv: Path) -> Path:
    """Make the environment in `folder` unless it is there; the folder of its programs."""
    programs, stamp = folder / "bin", folder / "made-for"
    wanted = _fingerprint()
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        LOG.unlink(missing_ok=True)
        make_environment(folder, uv)
        stamp.write_text(wanted, encoding="utf-8")
    return programs


def make_environment(folder: Path, uv: Path) -> None:
    """Install the locked group into a new environment, and let it see this interpreter's packages and the project."""
    python, locked = folder / "bin" / "python", folder / "locked.txt"
    run_logged([str(uv), "venv", "--quiet", "--python", sys.executable, str(folder)], LOG, cwd=ROOT)
    export = [str(uv), "export", "--frozen", "--quiet", "--only-group", "toolkit", "--output-file", str(locked)]
    run_logged(export, LOG, cwd=ROOT)
    install = [str(uv), "pip", "install", "--python", str(python), "--require-hashes", "-r", str(locked)]
    run_logged([*install, "--build-constraints", str(BUILD_REQUIREMENTS)], LOG, cwd=ROOT)
    site = next(folder.glob("lib/python3.*/site-packages"))
    (site / "calling_python.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n", encoding="utf-8")


def _fingerprint() -> str:
    lock = (ROOT / "uv.lock").read_bytes()
    return hashlib.sha256(lock + BUILD_REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()


def main() -> int:
    """Run the command line; the exit status."""
    uv = find_uv(ROOT)
    if uv is None:
        print("toolkit: no uv here; `python3 scripts/setup.py` installs it.", file=sys.stderr)
        return 1
    try:
        print(provide_toolkit(ROOT / "build" / "toolkit", uv))
    except StepError as exc:
        print(f"toolkit: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
