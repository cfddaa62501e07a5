"""README.md and docs/ against the code: commands parse, blocks compile, tables and links hold; the site as built."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from app import contract
from app.cli import cli
from app.dataset.build import ROWS
from app.settings import load
from app.workflow.order import asked_phases
from embedded.market.simulated import SimulatedMarket
from infra.context import load as load_deployment
from infra.context import written_context
from tests.pages import MARKS, NOT_RUN, PAGES, ROOT, Block, blocks, commands, every_block, page_of, program, shell_lines
from tests.unit.test_help import parse

PHASES = (ROOT / "docs" / "phases.md").read_text(encoding="utf-8")
CONSUMERS = (ROOT / "docs" / "consumers.md").read_text(encoding="utf-8")
OTHERS = {
    *(".", "aws", "cd", "curl", "docker", "echo", "eval"),
    *("export", "git", "grep", "output", "rm", "sed"),
}
"""Programs that are not ours: nobody here knows their options."""
LINKED = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "embedded" / "README.md")
"""Pages with links that the strict build of the site does not see."""


def table_below(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = text.partition(f"\n{heading}\n")[2]
    assert section, heading
    rows = [line for line in section.partition("\n#")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


# --- blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=page_of)
def test_a_block_says_what_it_is_and_its_mark_is_one_that_tests_know(path: Path) -> None:
    for block in blocks(path):
        assert block.language, f"{block.place}: name the language: sh for commands, text for what is printed"
        if block.language in {"sh", "python"} and block.mark:
            assert block.mark.startswith(MARKS), f"{block.place}: {block.mark}"
            assert block.status or len(block.mark.partition(": ")[2].split()) > 1, f"{block.place}: say why"


def test_what_is_not_run_is_listed_with_its_reason() -> None:
    listed = [f"{b.place}: {b.mark.removeprefix(NOT_RUN)}" for b in every_block("sh", "python") if NOT_RUN in b.mark]
    print("\n".join(listed))
    assert listed


@pytest.mark.parametrize("path", PAGES, ids=page_of)
def test_every_command_parses(path: Path) -> None:
    for block in blocks(path):
        for line in shell_lines(block.text) if block.language == "sh" else ():
            found = list(commands(line))
            assert found, f"{block.place}: {line}"
            for words in found:
                check_command(words, block)


def check_command(words: list[str], block: Block) -> None:
    name, arguments = program(words), words[1:]
    if name == "stockflow":
        check_stockflow(arguments, expect_wrong=bool(block.status))
    elif name == "make":
        check_make(arguments)
    elif name == "python":
        check_python(arguments)
    elif name == "mkdocs":
        assert arguments == ["serve"]
    else:
        assert name in OTHERS, (
            f"{block.place}: is {name} one of our programs? then it is to be checked, else named here"
        )


def check_stockflow(arguments: list[str], *, expect_wrong: bool = False) -> None:
    for option, value in pairwise(arguments):
        if option == "--sim":
            assert value.partition("=")[0] in SimulatedMarket.__dataclass_fields__, value
        elif option == "-c":
            load_deployment({**written_context(), **dict([value.split("=", 1)])})
    parse(["-" if option == "--input" else word for option, word in pairwise(["", *arguments])])  # click opens the file
    flags = [value for option, value in pairwise(arguments) if option == "--set"]
    if flags and not expect_wrong:
        load({}, flags)


def dry_make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What make would do, not as a part of the `make test` that may have started this."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = [shutil.which("make") or "make", "--dry-run", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)


def check_make(arguments: list[str]) -> None:
    done = dry_make(*arguments)
    assert done.returncode == 0, done.stderr
    for line in shell_lines(done.stdout):
        for words in commands(line):
            if program(words) == "stockflow":
                check_stockflow(words[1:])


def check_python(arguments: list[str]) -> None:
    match arguments:
        case ["-m", module, *_]:
            assert importlib.util.find_spec(module), module
        case ["-c", code]:
            compile(code, "command", "exec")
        case [script, *_]:
            assert (ROOT / script).is_file(), script


@pytest.mark.parametrize("block", every_block("python"), ids=lambda block: block.place)
def test_python_compiles_and_finds_what_it_imports(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for name in node.names:
                assert hasattr(module, name.name) or importlib.util.find_spec(f"{node.module}.{name.name}"), name.name


@pytest.mark.parametrize("block", every_block("json"), ids=lambda block: block.place)
def test_json_is_json_and_inputs_of_executions_are_right(block: Block) -> None:
    found = json.loads(block.text)
    if "phases" in found:
        assert asked_phases(found)
        load({contract.ENV_SETTINGS: json.dumps(found.get("settings", {}))})


def test_a_command_that_does_not_parse_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        "```sh\nexport A=$(stockflow runs --jsn)   # a note's quote\nmake fly\n```\n"
        "<!-- not run: it costs -->\n```sh\necho '{\n}' |\n  stockflow start --input - \\\n  --follow\n```\n"
    )
    wrong, right = blocks(tmp_path / "page.md")
    lines = [list(commands(line)) for line in shell_lines(wrong.text)]
    assert lines[0][-1] == ["stockflow", "runs", "--jsn"]
    with pytest.raises(Exception, match="No such option"):
        check_command(lines[0][-1], wrong)
    with pytest.raises(AssertionError, match="No rule to make target"):
        check_command(lines[1][0], wrong)
    with pytest.raises(Exception, match="unknown setting"):
        check_stockflow(["run", "--set", "training.epoch=1"])
    assert right.mark == "not run: it costs"
    (line,) = shell_lines(right.text)
    assert list(commands(line)) == [["echo", "{\n}"], ["stockflow", "start", "--input", "-", "--follow"]]


# --- tables -----------------------------------------------------------------------------------------------------------


def schema_rows(columns: tuple[contract.Column, ...]) -> list[list[str]]:
    return [[f"`{column.name}`", column.arrow_type, column.note] for column in columns]


def test_tables_of_columns_are_those_of_the_contract() -> None:
    assert table_below(PHASES, "### Bars and ticks") == schema_rows(contract.BARS)
    assert contract.TICKS == contract.BARS
    assert table_below(CONSUMERS, "## Columns") == schema_rows(contract.PREDICTIONS)
    assert f"The schema version is **{contract.PREDICTIONS_SCHEMA_VERSION}**" in CONSUMERS


def test_the_rows_of_a_dataset_and_their_features_are_described() -> None:
    *rows, features = table_below(PHASES, "### Rows of a dataset")
    types = {"timestamp[ms, tz=UTC]": "timestamp[ms, tz=UTC]"}
    described = [(name.strip("`"), types.get(kind, kind)) for name, kind, _ in rows]
    assert described == [(field.name, str(field.type)) for field in ROWS if field.name not in contract.FEATURES]
    assert "the seven" in features[0]
    assert [row[0] for row in table_below(PHASES, "### From bars to windows")] == [f"`{n}`" for n in contract.FEATURES]


def test_every_key_of_the_contract_is_in_the_page_of_the_phases() -> None:
    text = PHASES.replace("{train,validation,test}", "train")
    day = "<day>"
    keys = {
        *(contract.plan_key("<run>"), contract.coverage_key("<run>"), contract.manifest_key("<run>", "<shard>")),
        *(contract.feed_end_key("<run>"), contract.stream_key("<run>"), contract.stream_health_key("<run>")),
        *(contract.live_session_key("<run>"), contract.warm_state_key("<run>"), contract.begun_key("<run>")),
        *(contract.candidate_key("<run>"), contract.dataset_spec_key("<run>"), contract.dataset_key("<run>", "train")),
        *(contract.CURRENT_MODEL_KEY, contract.LATEST_DATASET_KEY, contract.LATEST_PREDICTIONS_KEY),
        *(contract.result_key("<run>", "<phase>"), f"{contract.journal_prefix('<run>', '<shard>')}<seq>.parquet"),
        *(f"{contract.BARS_PREFIX}dt={day}/<part>.parquet", f"{contract.ANSWERS_PREFIX}dt={day}/<part>.json"),
        *(f"{contract.TICKS_PREFIX}<run>/dt={day}/<epoch_ms>-<seq>.parquet",),
        *(f"{contract.PREDICTIONS_PREFIX}dt={day}/<run>-<micro-batch>.parquet",),
        *(contract.model_key("<model>", name) for name in (contract.MODEL_KERAS, contract.MODEL_SPEC)),
        *(contract.model_key("<model>", name) for name in (contract.MODEL_METRICS, contract.MODEL_CARD)),
        *(contract.model_key("<model>", contract.MODEL_DECISION), contract.checkpoints_prefix("<model>")),
    }
    assert {key for key in keys if key not in text} == set()


def test_every_command_is_in_the_documentation() -> None:
    told = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    assert {name for name in cli.commands if f"stockflow {name}" not in told} == set()


# --- links and the site -----------------------------------------------------------------------------------------------


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("path", LINKED, ids=page_of)
def test_links_outside_of_the_site_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            linked = path.parent / name if name else path
            assert linked.exists(), target
            if anchor:
                headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
                assert anchor in map(slug, headings), target


def test_every_decision_is_listed() -> None:
    listed = (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "docs" / "adr").glob("0*.md")):
        assert f"[{path.name[:4]}]({path.name})" in listed


class Loaded(HTMLParser):
    """What a page makes a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag != "a":
            self.urls += [url for name in ("src", "href", "srcset", "data") if (url := values.get(name))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert loaded.urls
        assert [url for url in loaded.urls if re.match(r"^(\w+:)?//", url)] == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()[\s\"']*(\w+:)?//", style.read_text(encoding="utf-8")), style


def test_the_makefile_builds_the_site_strictly_and_so_does_check() -> None:
    for target in ("docs", "check"):
        assert "NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict\n" in dry_make(target).stdout
