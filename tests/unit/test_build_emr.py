"""What `make emr` builds: the same bytes from the same input, a Python that finds its packages, good certificates."""

from __future__ import annotations

import importlib
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import boto3
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def build_emr(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("build_emr")


@pytest.fixture
def certificates(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("emr_certificates")


def write(folder: Path, **files: str) -> Path:
    """Files by name, `__` for a slash; each a day older than the one before."""
    for i, (name, text) in enumerate(files.items()):
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (1.7e9 - i * 86400, 1.7e9 - i * 86400))
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of a checkout as decides the environment."""
    files = {"pyproject.toml": "[project]", "uv.lock": "version = 1", "app__cli.py": "", "app__serving__run.py": "run"}
    return write(tmp_path / "checkout", **files)


# --- the archive --------------------------------------------------------------------------------------------------


def test_the_same_files_give_the_same_bytes_whatever_their_order_and_times(
    build_emr: ModuleType, tmp_path: Path
) -> None:
    first = write(tmp_path / "1", lib__a="a", lib__b__c="c", bin__python="#!")
    second = write(tmp_path / "2", bin__python="#!", lib__b__c="c", lib__a="a")
    (second / "lib" / "a").chmod(0o600)
    for stage in (first, second):
        build_emr.pack(stage, stage / "environment.tar.gz")
    packed = [(stage / "environment.tar.gz").read_bytes() for stage in (first, second)]
    assert packed[0] == packed[1]
    assert packed[0][4:8] == bytes(4)  # gzip's own time


def test_only_what_runs_is_packed_and_only_python_is_executable(build_emr: ModuleType, tmp_path: Path) -> None:
    stage = write(
        tmp_path / "stage",
        **{"lib__numpy__core.so": "", "lib__numpy__tests__test_core.py": "", "lib__numpy__testing__a.py": ""},
        **{"lib__numpy__include__numpy.h": "", "lib__numpy-2.dist-info__METADATA": "", "bin__python": ""},
        **{"lib__numpy-2.dist-info__RECORD": "", "requirements.txt": ""},
    )
    write(stage / "lib" / "app" / "__pycache__", **{"cli.pyc": ""})
    build_emr.pack(stage, tmp_path / "environment.tar.gz")
    with tarfile.open(tmp_path / "environment.tar.gz") as tar:
        entries = {entry.name: (entry.mode, entry.uid, entry.uname) for entry in tar}
    assert entries == {
        "bin/python": (0o755, 0, ""),
        "lib/numpy/core.so": (0o644, 0, ""),
        "lib/numpy/testing/a.py": (0o644, 0, ""),
        "lib/numpy-2.dist-info/METADATA": (0o644, 0, ""),
    }


@pytest.fixture
def builds(build_emr: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where packages were installed; without uv and network, each installation is one empty package."""
    installed: list[Path] = []

    def install(root: Path, uv: Path, lib: Path, log: Path) -> None:
        installed.append(lib)
        write(lib, **{"numpy__core.so": ""})

    monkeypatch.setattr(build_emr, "install_packages", install)
    monkeypatch.setattr(build_emr, "find_uv", lambda root: Path("uv"))
    return installed


def test_the_environment_holds_the_packages_and_the_app(
    build_emr: ModuleType, builds: list[Path], checkout: Path, tmp_path: Path
) -> None:
    write(checkout / "app" / "__pycache__", **{"cli.pyc": ""})
    archive = build_emr.provide_environment(checkout, tmp_path)
    with tarfile.open(archive) as tar:
        assert tar.getnames() == ["bin/python", "lib/app/cli.py", "lib/app/serving/run.py", "lib/numpy/core.so"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".environment.json",
        "checkout",
        "environment.tar.gz",
    ]


@pytest.mark.parametrize("changed", ["app/serving/run.py", "uv.lock", "app/new.json"])
def test_it_is_built_anew_only_when_code_or_lock_changed(
    build_emr: ModuleType, builds: list[Path], checkout: Path, tmp_path: Path, changed: str
) -> None:
    for _ in range(2):
        build_emr.provide_environment(checkout, tmp_path)
    assert len(builds) == 1
    (checkout / changed).write_text("changed")
    build_emr.provide_environment(checkout, tmp_path)
    assert len(builds) == 2


@pytest.mark.parametrize("stamp", ["", "no JSON", '["of an older build", 1]'])
def test_an_archive_without_its_stamp_is_not_trusted(
    build_emr: ModuleType, builds: list[Path], checkout: Path, tmp_path: Path, stamp: str
) -> None:
    build_emr.provide_environment(checkout, tmp_path)
    (tmp_path / ".environment.json").write_text(stamp)
    build_emr.provide_environment(checkout, tmp_path)
    assert len(builds) == 2


def test_an_archive_cut_short_is_not_trusted(
    build_emr: ModuleType, builds: list[Path], checkout: Path, tmp_path: Path
) -> None:
    archive = build_emr.provide_environment(checkout, tmp_path)
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-1])
    assert build_emr.provide_environment(checkout, tmp_path).read_bytes() == whole


def test_without_uv_the_user_is_told_to_set_up(
    build_emr: ModuleType, builds: list[Path], checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_emr, "find_uv", lambda root: None)
    with pytest.raises(build_emr.StepError, match="`make setup`"):
        build_emr.provide_environment(checkout, tmp_path)


# --- its Python ---------------------------------------------------------------------------------------------------


@pytest.fixture
def unpacked(build_emr: ModuleType, tmp_path: Path) -> Path:
    """An environment with one module, in a folder with a space."""
    folder = write(tmp_path / "file cache", lib__its_module="", bin__python=build_emr.WRAPPER)
    (folder / "lib" / "its_module").rename(folder / "lib" / "its_module.py")
    (folder / "bin" / "python").chmod(0o755)
    return folder


ASK = "import its_module, sys; print(its_module.__file__); print(*sys.argv[1:]); print(sys.path[1:3])"


def run_python(python: Path | str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": os.environ["PATH"], "STOCKFLOW_PYTHON3": sys.executable, **environ}
    command = [python, "-c", ASK, "a b", "$c"]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)


def test_python_finds_its_packages_from_any_folder_and_through_links(unpacked: Path, tmp_path: Path) -> None:
    container = tmp_path / "container"
    container.mkdir()
    (container / "environment").symlink_to(unpacked)  # as YARN does it
    (container / "python").symlink_to("environment/bin/python")
    for python in (unpacked / "bin" / "python", "./environment/bin/python", "./python"):
        done = run_python(python, container)
        assert done.returncode == 0, done.stderr
        module, arguments, _ = done.stdout.splitlines()
        assert module == str(unpacked / "lib" / "its_module.py")
        assert arguments == "a b $c"


def test_spark_s_own_pythonpath_comes_after_the_packages(unpacked: Path, tmp_path: Path) -> None:
    done = run_python(unpacked / "bin" / "python", tmp_path, PYTHONPATH="/spark/python")
    assert done.stdout.splitlines()[2] == str([str(unpacked / "lib"), "/spark/python"])


def test_a_node_without_the_right_python_says_so(unpacked: Path, tmp_path: Path) -> None:
    done = run_python(unpacked / "bin" / "python", tmp_path, STOCKFLOW_PYTHON3="python0.1")
    assert (done.returncode, done.stderr) == (
        127,
        "stockflow: python0.1 is not on this node's PATH: take an EMR release with Python 3.11\n",
    )


# --- certificates -------------------------------------------------------------------------------------------------

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on PATH")


def openssl(folder: Path, *arguments: str) -> str:
    return subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout  # noqa: S607


@needs_openssl
def test_the_zip_holds_what_emr_expects_and_only_its_owner_reads_it(
    certificates: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = certificates.provide_certificates(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["certificates.zip"]
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["privateKey.pem", "certificateChain.pem", "trustedCertificates.pem"]
        archive.extractall(tmp_path)  # noqa: S202  (our own)
    assert "PRIVATE KEY" in (tmp_path / "privateKey.pem").read_text()
    assert "PRIVATE" not in "".join(capfd.readouterr())
    public = openssl(tmp_path, "x509", "-in", "certificateChain.pem", "-noout", "-pubkey")
    assert public == openssl(tmp_path, "pkey", "-in", "privateKey.pem", "-pubout")
    assert "2048 bit" in openssl(tmp_path, "pkey", "-in", "privateKey.pem", "-noout", "-text_pub")
    openssl(tmp_path, "verify", "-CAfile", "trustedCertificates.pem", "-purpose", "sslserver", "certificateChain.pem")


@needs_openssl
@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("ip-10-0-1-2.ec2.internal", "does match"),
        ("ip-10-0-1-2.eu-west-1.compute.internal", "does match"),
        ("example.com", "does NOT match"),
    ],
)
def test_nodes_of_every_region_go_by_names_of_the_certificate(
    certificates: ModuleType, tmp_path: Path, host: str, answer: str
) -> None:
    with zipfile.ZipFile(certificates.provide_certificates(tmp_path)) as archive:
        archive.extractall(tmp_path)  # noqa: S202  (our own)
    assert answer in openssl(tmp_path, "x509", "-in", "certificateChain.pem", "-noout", "-checkhost", host)


def test_no_region_of_emr_is_missing(certificates: ModuleType) -> None:
    known = set(boto3.Session().get_available_regions("emr"))
    assert set(certificates.REGIONS) == known - {"us-east-1"}  # whose nodes are *.ec2.internal


@needs_openssl
def test_certificates_are_kept_until_they_end_soon_or_lack_a_name(
    certificates: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made() -> bytes:
        return bytes(certificates.provide_certificates(tmp_path).read_bytes())

    first = made()
    assert made() == first
    monkeypatch.setattr(certificates, "LEFT_S", certificates.DAYS * 86400)
    second = made()
    assert second != first
    monkeypatch.undo()
    monkeypatch.setattr(certificates, "NAMES", (*certificates.NAMES, "*.new-region-1.compute.internal"))
    assert made() != second
    monkeypatch.undo()
    (tmp_path / "certificates.zip").write_bytes(second[:100])
    assert made() != second[:100]


def test_a_missing_openssl_is_named_with_the_package_to_install(
    certificates: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(certificates.StepError, match=r"openssl.* is not on PATH: apt-get install openssl"):
        certificates.provide_certificates(tmp_path)
