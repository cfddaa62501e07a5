"""What a synth makes: the Lambdas' code, the images' files, templates that are the same each time, and errors."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from infra import nag
from infra.root import ROOT
from infra.states.definition import Functions
from tests.infra.synthesised import VARIATIONS, Synthesised
from tests.infra.templates import resources

OF_A_LAMBDA = {"app", "boto3", "botocore"}
"""What a handler may import besides the standard library."""


# --- the Lambdas --------------------------------------------------------------------------------


def test_each_lambda_s_handler_is_in_what_is_uploaded(any_app: Synthesised) -> None:
    assert any_app.functions().keys() == {field.name for field in fields(Functions)}
    for name in any_app.functions():
        tree = ast.parse((any_app.lambda_folder() / f"{name}.py").read_text())
        assert "handler" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


def test_lambdas_are_traced_and_log_where_logs_end(any_app: Synthesised) -> None:
    groups = resources(any_app.compute, "AWS::Logs::LogGroup")
    for function in any_app.functions().values():
        assert function["TracingConfig"] == {"Mode": "Active"}
        assert function["LoggingConfig"]["LogGroup"]["Ref"] in groups
        assert function["Runtime"] == "python3.12"


def test_what_is_uploaded_holds_no_third_party_package(default_app: Synthesised) -> None:
    folder = default_app.lambda_folder()
    handlers = {f"{field.name}.py" for field in fields(Functions)}
    data = {"defaults.json", "sessions.json", "settings_schema.json"}
    assert {found.name for found in folder.iterdir()} == {"app", "zoneinfo", *handlers, *data}
    for file in folder.rglob("*.py"):
        foreign = {name.partition(".")[0] for name in imports(file)} - set(sys.stdlib_module_names) - OF_A_LAMBDA
        # The calendar's library is imported in a function that no Lambda calls: it has sessions.json.
        assert foreign <= ({"exchange_calendars"} if file.name == "sessions.py" else set()), file
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 2_000_000


def test_what_is_uploaded_imports_of_the_app_is_uploaded_too(default_app: Synthesised) -> None:
    folder = default_app.lambda_folder()
    for file in folder.rglob("*.py"):
        for name in imports(file):
            if name.startswith("app."):
                module = folder / name.replace(".", "/")
                assert module.with_suffix(".py").is_file() or (module / "__init__.py").is_file(), (file, name)


def imports(file: Path) -> set[str]:
    """Modules that a file imports anywhere but for the sake of types: app.contract, boto3."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(file.read_text())]
    while waiting:
        match waiting.pop():
            case ast.If(test=ast.Name("TYPE_CHECKING")):
                continue
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module="app", names=names):
                found |= {f"app.{alias.name}" for alias in names}
            case ast.ImportFrom(module=str(module)):
                found.add(module)
            case node:
                waiting += ast.iter_child_nodes(node)
    return found


# --- the synth ----------------------------------------------------------------------------------


def test_no_finding_of_the_aws_solutions_rules_is_open_and_every_exception_is_needed(any_app: Synthesised) -> None:
    report = nag.read_report(any_app.folder)
    assert report.open == ()
    assert report.idle == ()
    assert all(len(reason) > 20 and reason.endswith(".") for reason in report.reasons.values())


def test_a_second_synth_gives_the_same_templates(default_app: Synthesised, tmp_path: Path) -> None:
    again = Synthesised(VARIATIONS["default"], tmp_path)
    assert again.data == default_app.data
    assert again.compute == default_app.compute
    assert {file.name for file in again.folder.glob("asset.*")} == {
        file.name for file in default_app.folder.glob("asset.*")
    }


def test_templates_stay_below_cloudformation_s_limits(any_app: Synthesised) -> None:
    for stack in (any_app.data, any_app.compute):
        assert len(json.dumps(stack)) < 500_000  # of 1 MB
        assert len(stack["Resources"]) < 250  # of 500


def test_images_are_made_of_what_they_need_only(default_app: Synthesised) -> None:
    """Else a change of a test would build them anew, and the synth would read gigabytes."""
    images = [folder for folder in default_app.folder.glob("asset.*") if (folder / "docker").is_dir()]
    assert images
    for folder in images:
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        top = {path.partition("/")[0] for path in found}
        assert top <= {"app", "docker", "scripts", "pyproject.toml", "uv.lock", ".dockerignore"}
        assert len(found) < 250
        assert not [path for path in found if "__pycache__" in path]


def run_app(outdir: Path, *, offline: bool = False, **environ: str) -> subprocess.CompletedProcess[str]:
    """`python app.py` as somebody would without an AWS account or Docker: no credentials, and nothing on PATH."""
    kept = {name: value for name, value in os.environ.items() if name in {"HOME", "JSII_NODE", "TMPDIR", "LANG"}}
    node = {"JSII_NODE": kept.get("JSII_NODE") or shutil.which("node") or ""}
    (outdir / "bin").mkdir()
    alone = [str(shutil.which("unshare")), "--net"] if offline else []
    return subprocess.run(
        [*alone, sys.executable, str(ROOT / "app.py")],
        env={**kept, **node, "PATH": str(outdir / "bin"), "CDK_OUTDIR": str(outdir / "out"), **environ},
        cwd=outdir,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def can_be_cut_off() -> bool:
    """Whether a process can be started without a network here."""
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "--net", "true"], check=False).returncode == 0


def test_the_app_synthesises_without_docker_credentials_or_network(default_app: Synthesised, tmp_path: Path) -> None:
    done = run_app(tmp_path, offline=can_be_cut_off())
    assert (done.returncode, done.stderr) == (0, "")
    template = json.loads((tmp_path / "out" / "stockflow-compute.template.json").read_text())
    assert template == default_app.compute


@pytest.mark.parametrize(
    ("context", "told"),
    [
        ({"training.instance_type": "g3s.xlarge"}, r"setting training\.instance_type='g3s\.xlarge': g3s was never .+"),
        ({"ingestion": {"fleet": 3}}, r"unknown setting ingestion\.fleet: allowed are ingestion\.instance_type, .+"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(tmp_path: Path, context: dict[str, Any], told: str) -> None:
    done = run_app(tmp_path, CDK_CONTEXT_JSON=json.dumps(context))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(f"stockflow: {told}\n", done.stderr)
    assert not (tmp_path / "out" / "manifest.json").exists()
