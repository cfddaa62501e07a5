"""Build what an EMR cluster is given, into build/emr, without Docker: its Python environment and its certificates.

usage: python3 scripts/build_emr.py      (or: make emr); a folder for something else than build/emr may follow

environment.tar.gz   bin/python and lib/: the packages of uv.lock that serving needs, as wheels for the cluster's
                     Python and platform, and the `app` package. Spark itself is the cluster's. spark-submit takes it as
                     --archives .../environment.tar.gz#environment, and ./environment/bin/python as the Python.
                     The same lock and code give the same bytes; it is built anew only when one of them changed.
certificates.zip     PEM files for EMR's encryption in transit, self-signed. Kept until 30 days before their end.

This file runs on any Python from 3.8 and needs only the standard library, uv and openssl.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from emr_certificates import provide_certificates
from setup import UV_SETTINGS, find_uv
from shell import StepError, run_logged, step

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "3.11"
PLATFORM = "x86_64-manylinux_2_28"  # EMR's Amazon Linux 2023 has glibc 2.34
FROM_THE_CLUSTER = ("pyspark", "py4j")
FOLDERS_LEFT_OUT = frozenset({"__pycache__", "tests", "include"})  # include: pyarrow's and numpy's C headers
FILES_LEFT_OUT = frozenset({"RECORD", "REQUESTED", "INSTALLER", ".lock"})  # they tell of this machine's installation
GZIP_LEVEL = 4  # 3 % larger than level 6, in less than half the time
EPOCH_S = 315532800  # 1980-01-01: some tools refuse older files
WRAPPER = """\
#!/bin/sh
# Python with the packages beside this file, wherever they were unpacked; pyspark is the one on PYTHONPATH.
here=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")
PYTHONPATH="$here/lib${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH
python=${STOCKFLOW_PYTHON3:-python@VERSION@}
command -v "$python" >/dev/null || {
    echo "stockflow: $python is not on this node's PATH: take an EMR release with Python @VERSION@" >&2
    exit 127
}
exec "$python" "$@"
""".replace("@VERSION@", PYTHON)


# --- what goes in -----------------------------------------------------------------------------------------------------


def app_files(root: Path) -> list[Path]:
    """The files of the `app` package."""
    return sorted(path for path in (root / "app").rglob("*") if path.is_file() and _is_wanted(path.relative_to(root)))


def inputs_digest(root: Path) -> str:
    """A digest of all that decides the environment's content."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in (root / "pyproject.toml", root / "uv.lock", *app_files(root)):
        content = path.read_bytes()
        digest.update(f"\n{path.relative_to(root)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _is_wanted(path: Path) -> bool:
    return not FOLDERS_LEFT_OUT.intersection(path.parts[:-1]) and path.name not in FILES_LEFT_OUT


# --- the environment --------------------------------------------------------------------------------------------------


def install_packages(root: Path, uv: Path, lib: Path, log: Path) -> None:
    """Unpack the locked wheels of serving, for the cluster's Python and platform, into `lib`."""
    requirements = lib.with_name("requirements.txt")
    export = [str(uv), "export", "--frozen", "--no-default-groups", "--group", "serve", "--no-emit-project"]
    export += [word for name in FROM_THE_CLUSTER for word in ("--no-emit-package", name)]
    run_logged([*export, "--quiet", "--output-file", str(requirements)], log, cwd=root, env=UV_SETTINGS)
    install = [str(uv), "pip", "install", "--target", str(lib), "--requirements", str(requirements)]
    install += ["--python-version", PYTHON, "--python-platform", PLATFORM]
    install += ["--only-binary", ":all:", "--no-deps", "--require-hashes"]
    run_logged(install, log, cwd=root, env=UV_SETTINGS)
    shutil.rmtree(lib / "bin", ignore_errors=True)  # commands that name this machine's Python


def add_own_files(root: Path, stage: Path) -> None:
    """Put the `app` package into lib/ and the wrapper into bin/."""
    for path in app_files(root):
        copy = stage / "lib" / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    (stage / "bin").mkdir()
    (stage / "bin" / "python").write_text(WRAPPER, encoding="utf-8")


def pack(stage: Path, archive: Path) -> None:
    """Write bin/ and lib/ of `stage` as a .tar.gz whose bytes depend on their content alone."""
    scratch = archive.with_suffix(".tmp")
    with scratch.open("wb") as raw, gzip.GzipFile("", "wb", GZIP_LEVEL, raw, mtime=0) as zipped:
        _write_tar(stage, zipped)
    scratch.replace(archive)


def _write_tar(stage: Path, sink: gzip.GzipFile) -> None:
    with tarfile.open(mode="w", fileobj=sink, format=tarfile.GNU_FORMAT) as tar:
        for path, entry in _entries(stage):
            with path.open("rb") as content:
                tar.addfile(entry, content)


def _entries(stage: Path) -> Iterator[tuple[Path, tarfile.TarInfo]]:
    found = (path for folder in ("bin", "lib") for path in (stage / folder).rglob("*") if path.is_file())
    for name, path in sorted((path.relative_to(stage).as_posix(), path) for path in found):
        if _is_wanted(Path(name)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = path.stat().st_size, EPOCH_S
            entry.mode = 0o755 if name.startswith("bin/") else 0o644
            yield path, entry


def provide_environment(root: Path, out: Path) -> Path:
    """Build the environment's archive, unless `out` holds that of the present lock and code; its path."""
    archive, stamp = out / "environment.tar.gz", out / ".environment.json"
    digest = inputs_digest(root)
    if archive.exists() and _read_stamp(stamp) == [digest, archive.stat().st_size]:
        return archive
    uv = find_uv(root)
    if uv is None:
        raise StepError("uv is not in build/tools: `make setup` puts it there.")
    log = root / "build" / "logs" / "emr.log"
    with tempfile.TemporaryDirectory(prefix=".stage-", dir=out) as name:
        stage = Path(name)
        with step(f"the packages of uv.lock for Python {PYTHON} on {PLATFORM}", "emr"):
            install_packages(root, uv, stage / "lib", log)
        with step(f"packing {archive.name}", "emr"):
            add_own_files(root, stage)
            pack(stage, archive)
    stamp.write_text(json.dumps([digest, archive.stat().st_size]) + "\n", encoding="utf-8")
    return archive


def _read_stamp(stamp: Path) -> object:
    try:
        return json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or not one of ours
        return None


def main() -> int:
    """Build all; the exit status."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "emr"
    out.mkdir(parents=True, exist_ok=True)
    try:
        for path in (provide_environment(ROOT, out), provide_certificates(out)):
            print(f"emr: {os.path.relpath(path, ROOT)}, {path.stat().st_size / 1e6:,.3f} MB")
    except StepError as exc:
        print(f"emr: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
