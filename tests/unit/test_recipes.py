"""The container recipes: facts that need neither root nor a network, and the parser that carries them out."""

from __future__ import annotations

import importlib
import os
import re
import stat
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.test_setup import SCRIPTS, load

ROOT = SCRIPTS.parent
NAMES = ("ingest", "training")
SECRET = re.compile(r"secret|password|passwd|token|credential|_key\b|access_key", re.IGNORECASE)


@pytest.fixture
def dockerfile(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("dockerfile", monkeypatch)


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("recipes", monkeypatch)


@pytest.fixture
def debian_root(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("debian_root", monkeypatch)


@pytest.fixture
def try_recipes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("try_recipes", monkeypatch)


def text_of(name: str) -> str:
    return (ROOT / "docker" / name / "Dockerfile").read_text(encoding="utf-8")


def steps_of(dockerfile: ModuleType, name: str, *kinds: str) -> list[Any]:
    """The instructions of a recipe, of the given kinds only if there are any."""
    return [step for step in dockerfile.parse(text_of(name)) if not kinds or step.name in kinds]


def commands_of(dockerfile: ModuleType, name: str) -> list[str]:
    """The single commands of a recipe's RUN steps."""
    runs = steps_of(dockerfile, name, "RUN")
    return [command.strip() for step in runs for command in re.split(r"&&|;|\|\|", step.text)]


# --- the recipes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_begins_with_its_base_image_as_an_argument(dockerfile: ModuleType, name: str) -> None:
    argument, start, *_ = steps_of(dockerfile, name)
    assert argument.name == "ARG"
    assert argument.text.startswith("BASE=")
    assert re.search(r":[\w.-]*\d", argument.text), "a base image without a version"
    assert start.words({"BASE": "image"})[0] == "image"


def test_the_ingest_image_runs_stockflow_as_a_fixed_user_that_is_not_root(dockerfile: ModuleType) -> None:
    steps = steps_of(dockerfile, "ingest")
    last = {step.name: (index, step) for index, step in enumerate(steps)}
    assert re.fullmatch(r"[1-9]\d{4,}:[1-9]\d{4,}", last["USER"][1].text)
    assert all(last["USER"][0] > last[name][0] for name in ("FROM", "RUN", "COPY"))
    assert last["ENTRYPOINT"][1].words({}) == ["stockflow"]
    assert any(f"--uid {last['USER'][1].text.split(':')[0]} " in step.text for step in steps if step.name == "RUN")


def test_the_ingest_image_holds_no_tool_that_builds_or_installs(dockerfile: ModuleType) -> None:
    steps = steps_of(dockerfile, "ingest")
    final = steps[max(index for index, step in enumerate(steps) if step.name == "FROM") :]
    packages = [word for step in final if "apt-get" in str(step) for word in step.text.split()]
    assert {word for word in packages if re.match(r"python|g\+\+|gcc|make|git", word)} == {"python3.11"}
    assert {step.flags.get("from") for step in final if step.name == "COPY"} == {"packages"}
    assert not [step for step in final if "pip install" in step.text]


@pytest.mark.parametrize("name", NAMES)
def test_whatever_comes_from_an_index_is_pinned_by_the_lock_or_by_hashes(dockerfile: ModuleType, name: str) -> None:
    commands = [command for command in commands_of(dockerfile, name) if re.search(r"\b(pip|uv) ", command)]
    installs = [
        command for command in commands if re.search(r"\bpip (install|download|wheel)|\buv (sync|add)", command)
    ]
    assert installs
    for command in installs:
        assert ("--require-hashes -r " in command) or ("uv sync --frozen " in command), command
    assert all("--frozen" in command for command in commands if "uv export" in command)
    assert all("--no-cache" in command for command in installs)


@pytest.mark.parametrize("name", NAMES)
def test_no_package_is_built_from_source_but_horovod(dockerfile: ModuleType, name: str) -> None:
    for command in commands_of(dockerfile, name):
        if "uv sync" in command:
            assert "--no-build " in command
            assert "--no-install-project " in command
        if "uv pip install" in command:
            assert "--only-binary :all: " in command


@pytest.mark.parametrize("name", NAMES)
def test_system_packages_come_without_recommendations_after_an_update(dockerfile: ModuleType, name: str) -> None:
    for step in steps_of(dockerfile, name, "RUN"):
        if "apt-get install" in step.text:
            assert str(step).startswith("RUN apt-get update && apt-get install -y --no-install-recommends ")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_fetched_by_url_and_no_variable_looks_like_a_secret(dockerfile: ModuleType, name: str) -> None:
    assert not re.search(r"^\s*ADD\b", text_of(name), flags=re.MULTILINE | re.IGNORECASE)
    assert not re.search(r"\b(curl|wget)\b|https?://|git clone", text_of(name))
    for step in steps_of(dockerfile, name, "ENV", "ARG"):
        names = re.findall(r"(\w+)=", step.text) or [step.text]
        assert not [found for found in names if SECRET.search(found)]


def test_the_training_image_keeps_the_tensorflow_of_its_base(dockerfile: ModuleType) -> None:
    text = text_of("training")
    assert "--prune tensorflow-cpu" in text
    assert "--no-deps" in text
    assert not [c for c in commands_of(dockerfile, "training") if re.search(r"install.*tensorflow", c)]
    assert not re.search(r"--group (?!train\b)", text)


def test_the_training_image_is_built_for_nccl_unless_asked_otherwise(
    dockerfile: ModuleType, recipes: ModuleType
) -> None:
    defaults = dict(step.text.split("=", 1) for step in steps_of(dockerfile, "training", "ARG"))
    assert defaults["HOROVOD_GPU_OPERATIONS"] == "NCCL"
    assert "HOROVOD_GPU_OPERATIONS" not in recipes.TRAINING.arguments
    assert set(recipes.TRAINING.arguments) <= set(defaults)


def test_the_base_image_of_training_has_the_locked_tensorflow(dockerfile: ModuleType, recipes: ModuleType) -> None:
    base = steps_of(dockerfile, "training", "ARG")[0].text
    major, minor, _ = recipes.locked_version("tensorflow-cpu").split(".")
    assert f"/tensorflow-training:{major}.{minor}-gpu-" in base


def test_the_toolkit_finds_the_program_that_the_image_holds(dockerfile: ModuleType) -> None:
    environment = {}
    for step in steps_of(dockerfile, "training", "ENV"):
        environment.update(step.pairs({}))
    targets = [step.words({})[-1] for step in steps_of(dockerfile, "training", "COPY")]
    assert f"/opt/ml/code/{environment['SAGEMAKER_PROGRAM']}" in targets


# --- the build context ------------------------------------------------------------------------------------------------


def context(dockerfile: ModuleType) -> list[str]:
    ignored = dockerfile.Ignored((ROOT / ".dockerignore").read_text(encoding="utf-8"))
    return list(dockerfile.context_files(ROOT, ignored))


@pytest.mark.parametrize("name", NAMES)
def test_every_copied_file_is_in_the_context(dockerfile: ModuleType, name: str) -> None:
    files = context(dockerfile)
    for step in steps_of(dockerfile, name, "COPY"):
        for source in step.words({})[:-1] if "from" not in step.flags else []:
            assert any(f"{path}/".startswith(f"{source}/") for path in files), source


def test_the_context_holds_what_the_images_take_and_nothing_else(dockerfile: ModuleType) -> None:
    sources = [
        source
        for name in NAMES
        for step in steps_of(dockerfile, name, "COPY")
        if "from" not in step.flags
        for source in step.words({})[:-1]
    ]
    wanted = [*sources, *(f"docker/{name}/Dockerfile" for name in NAMES)]
    assert [path for path in context(dockerfile) if not any(f"{path}/".startswith(f"{s}/") for s in wanted)] == []


def test_the_cdk_finds_the_dockerfiles_in_the_context(dockerfile: ModuleType) -> None:
    # it copies the context away and adds a Dockerfile by its bare name only, which is none of these
    assert {f"docker/{name}/Dockerfile" for name in NAMES} <= set(context(dockerfile))


def test_the_program_of_the_ingest_image_may_be_run() -> None:
    program = ROOT / "docker" / "ingest" / "stockflow"
    assert program.stat().st_mode & stat.S_IXUSR
    assert program.read_text(encoding="utf-8").startswith("#!/opt/venv/bin/python\n")


PATTERNS = "*\n!app\n**/__pycache__\n# note\n!docker/*/Dockerfile\n!docs/**/*.md\ndocs/old\n!uv.lock\napp/?.txt\n"
PATHS = (
    "app/a.py",
    "app/deep/b.py",
    "app/__pycache__/a.pyc",
    "app/deep/__pycache__/b.pyc",
    "app/x.txt",
    "app/xy.txt",
    "apple/a.py",
    "docker/ingest/Dockerfile",
    "docker/ingest/deep/Dockerfile",
    "docker/train.py",
    "docs/a.md",
    "docs/new/deep/b.md",
    "docs/new/c.txt",
    "docs/old/d.md",
    "uv.lock",
    "uv.lock.bak",
    ".git/HEAD",
)


def test_ignored_files_are_those_that_dockers_own_client_leaves_out(dockerfile: ModuleType, tmp_path: Path) -> None:
    build = pytest.importorskip("docker.utils.build")
    for path in PATHS:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    theirs = {path for path in build.exclude_paths(str(tmp_path), PATTERNS.splitlines()) if (tmp_path / path).is_file()}
    assert set(dockerfile.context_files(tmp_path, dockerfile.Ignored(PATTERNS))) == theirs
    assert theirs == {"app/a.py", "app/deep/b.py", "app/xy.txt", "docs/a.md", "uv.lock"}


def test_a_pattern_that_is_not_understood_is_refused(dockerfile: ModuleType) -> None:
    with pytest.raises(dockerfile.RecipeError, match=r"a\[bc\] is not known here"):
        "abc" in dockerfile.Ignored("a[bc]\n")  # noqa: B015  asking is what raises


# --- the parser -------------------------------------------------------------------------------------------------------


def test_continued_lines_are_joined_and_comments_between_them_left_out(dockerfile: ModuleType) -> None:
    text = "# top\nFROM base AS one\n\nRUN a \\\n  # why\n\n && b \\  \n && c # not a comment\nUSER 1\n"
    first, run, user = dockerfile.parse(text)
    assert (first.line, first.name, first.text) == (2, "FROM", "base AS one")
    assert (run.line, run.text.split()) == (4, ["a", "&&", "b", "&&", "c", "#", "not", "a", "comment"])
    assert (user.line, user.text) == (9, "1")


def test_flags_words_and_variables_are_read(dockerfile: ModuleType) -> None:
    copy, env, entry = dockerfile.parse(
        'COPY --from=one --chown=1:2 a "b c" ${D}/\nENV A="x ${B:-y}" C=$D${E:+z}\\$F\nENTRYPOINT ["a", "$B"]\n'
    )
    assert copy.flags == {"from": "one", "chown": "1:2"}
    assert copy.words({"D": "/opt"}) == ["a", "b c", "/opt/"]
    assert env.pairs({"D": "d", "E": "e"}) == {"A": "x y", "C": "dz$F"}
    assert entry.words({"B": "no"}) == ["a", "$B"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("FROM a\nADD https://x /y\n", "line 2: ADD"),
        ("FROM a\nRUN <<EOF\necho\nEOF\n", "line 2: the heredoc EOF"),
        ("FROM a\nRUN cat > x <<-'END'\nEND\n", "line 2: the heredoc END"),
        ("FROM a\nCOPY <<E /x\nE\n", "line 2: the heredoc E"),
        ("FROM a\nRUN --mount=type=cache,target=/x true\n", "line 2: RUN --mount"),
        ("FROM --platform=linux/arm64 a\n", "line 1: FROM --platform"),
        ("# escape=`\nFROM a\n", "escape"),
        ("FROM a\nRUN x \\\n", "line 2: the last line is continued"),
    ],
)
def test_what_the_parser_does_not_know_is_refused_by_name(dockerfile: ModuleType, text: str, named: str) -> None:
    with pytest.raises(dockerfile.RecipeError, match=re.escape(named)):
        dockerfile.parse(text)


def test_an_unknown_form_of_a_variable_is_refused(dockerfile: ModuleType) -> None:
    (step,) = dockerfile.parse("USER ${A%x}\n")
    with pytest.raises(dockerfile.RecipeError, match=re.escape("line 1: ${A%x}")):
        step.words({"A": "ax"})


# --- the trial --------------------------------------------------------------------------------------------------------


def test_without_root_the_trial_says_so_in_one_line_and_exits_with_77(
    try_recipes: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert try_recipes.main(["ingest"]) == 77
    assert capsys.readouterr().err == "try_recipes: this needs root: type it with sudo\n"


def test_without_debootstrap_the_trial_names_its_package(
    debian_root: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(debian_root, "PATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert debian_root.why_not_here() == "debootstrap is missing: apt-get install debootstrap"


def test_the_machines_own_mirrors_of_debian_12_are_used(debian_root: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://no/debian bookworm main\ndeb [arch=amd64] http://a/debian bookworm main contrib\n"
        "deb http://b/ubuntu noble main\ndeb-src http://c/debian bookworm main\n"
    )
    (tmp_path / "sources.list.d" / "x.sources").write_text(
        "Types: deb\n# URIs: http://no/debian\nURIs: http://d/debian\nSuites: bookworm bookworm-updates trixie\n"
        "Components: main\n\nTypes: deb\nURIs: http://e/other\nSuites: bookworm\nComponents: contrib\n"
    )
    (tmp_path / "sources.list.d" / "x.list.disabled").write_text("deb http://f/debian bookworm main\n")
    assert list(debian_root.machine_sources(tmp_path)) == [
        ("http://a/debian", "bookworm"),
        ("http://d/debian", "bookworm"),
        ("http://d/debian", "bookworm-updates"),
    ]


def test_a_user_is_looked_up_in_the_image_and_not_on_the_machine(debian_root: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\nme:x:12:34::/home/me:/bin/sh\n")
    (tmp_path / "etc" / "group").write_text("root:x:0:\nus:x:56:\n")
    assert debian_root.find_user(tmp_path, "me") == ("12:34", "/home/me")
    assert debian_root.find_user(tmp_path, "me:us") == ("12:56", "/home/me")
    assert debian_root.find_user(tmp_path, "12:0") == ("12:0", "/home/me")
    assert debian_root.find_user(tmp_path, "77") == ("77:0", "/")


def test_a_link_in_the_image_never_leads_a_copy_onto_the_machine(try_recipes: ModuleType, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr" / "local").mkdir(parents=True)
    (root / "opt").symlink_to("/etc")
    (root / "lib").symlink_to("usr")
    stage = try_recipes.Stage(root, {}, folder="/usr")
    assert stage.path("local/x") == root / "usr" / "local" / "x"
    assert stage.path("/lib/local/x") == root / "lib" / "local" / "x"
    for inside in ("/opt/x", "/../x"):
        with pytest.raises(importlib.import_module("dockerfile").RecipeError, match="leads out of the image"):
            stage.path(inside)


RECIPE = """\
ARG WHERE=/opt
FROM base AS one
ARG WHERE
ARG DEEP
ENV PLACE=${WHERE}/${DEEP}
WORKDIR ${PLACE}
COPY --chown=me app code
COPY --chown=me app/a.py app/deep/b.py ./
FROM base
COPY --from=one --chown=me /opt/x /srv/y
USER me
WORKDIR /srv
ENTRYPOINT ["run"]
"""


def test_a_recipe_is_carried_out_from_its_context_and_its_earlier_stages(
    try_recipes: ModuleType, recipes: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("checkout/app/a.py", "checkout/app/deep/b.py", "checkout/app/c.pyc", "base/etc/group"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "base" / "etc" / "passwd").write_text(f"me:x:{os.getuid()}:{os.getgid()}::/home/me:/bin/sh\n")
    (tmp_path / "base" / "etc" / "apt" / "apt.conf.d").mkdir(parents=True)
    (tmp_path / "checkout" / "Dockerfile").write_text(RECIPE)
    (tmp_path / "checkout" / ".dockerignore").write_text("*\n!app\n**/*.pyc\n")
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(try_recipes, "ROOT", tmp_path / "checkout")
    recipe = recipes.Recipe("test", "Dockerfile", (), arguments={"DEEP": "x"})
    stage = try_recipes.Build(recipe, tmp_path / "base", tmp_path / "work", tmp_path / "log").run()
    copied = sorted(path.relative_to(stage.root).as_posix() for path in (stage.root / "srv").rglob("*.*"))
    assert copied == ["srv/y/a.py", "srv/y/b.py", "srv/y/code/a.py", "srv/y/code/deep/b.py"]
    assert (stage.folder, stage.user, stage.entrypoint) == ("/srv", "me", ["run"])
    assert "PLACE" not in stage.environment


def test_a_copy_of_what_is_not_in_the_context_is_an_error(
    try_recipes: ModuleType, recipes: ModuleType, tmp_path: Path
) -> None:
    build = try_recipes.Build(recipes.INGEST, tmp_path, tmp_path, tmp_path / "log")
    copy, none = importlib.import_module("dockerfile").parse("COPY tests /x\nCOPY --from=none a /x\n")
    with pytest.raises(importlib.import_module("dockerfile").RecipeError, match=r"no tests in the build context"):
        list(build._found(copy, "tests"))
    with pytest.raises(importlib.import_module("dockerfile").RecipeError, match="no a in the stage none"):
        list(build._found(none, "a"))


def test_the_stand_in_has_the_tensorflow_that_aws_has(recipes: ModuleType) -> None:
    commands = " ".join(recipes.AWS_IMAGE_HAS)
    assert f"tensorflow=={recipes.locked_version('tensorflow-cpu')} " in commands
    assert "tensorflow-cpu" not in commands


def test_the_scripts_of_the_trial_need_the_standard_library_alone() -> None:
    ours = {path.stem for path in SCRIPTS.glob("*.py")}
    for name in ("dockerfile", "debian_root", "recipes", "try_recipes"):
        text = (SCRIPTS / f"{name}.py").read_text(encoding="utf-8")
        code = text.split('RANK = """')[0] + text.partition('RANK = """')[2].partition('"""')[2]
        imported = set(re.findall(r"^(?:from|import) (\w+)", code, flags=re.MULTILINE))
        assert imported <= {*sys.stdlib_module_names, *ours}, name


def test_the_images_python_is_one_that_the_project_takes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11,<3.13"
    assert "python3.11 " in text_of("ingest")
    assert "-py312-" in text_of("training")
