"""The settings file: what `stockflow init` writes, who reads it, who wins, and what a wrong one is told."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import contract
from app.cli import main
from app.errors import SettingsError
from app.setting_words import allowed, names_in, nearest, unit
from app.settings import Settings, describe, load
from app.settings_file import DEFAULT_FILE, as_markdown, as_toml, every_setting, with_file, write_file
from embedded.execution_input import with_settings

ROOT = Path(__file__).parents[2]
PLACE = {
    contract.ENV_MARKET_BUCKET: "market",
    contract.ENV_MODEL_BUCKET: "models",
    contract.ENV_PREDICTIONS_BUCKET: "predictions",
    contract.ENV_RUN_ID: "r",
}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty current folder, and an environment that says nothing of settings."""
    for name in (contract.ENV_SETTINGS, contract.ENV_SETTINGS_FILE, contract.ENV_NOW):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def stockflow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Any]]:
    """Runs the entry point in this process; returns its status, output and error."""
    for name, value in PLACE.items():
        monkeypatch.setenv(name, value)
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["stockflow", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        return (caught.value.code, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, before)


def read(path: Path | None = None, *flags: str, **environ: str) -> Settings:
    """The settings of a command line."""
    return load(with_file(environ, flags, path), flags)


def put(text: str, name: str = DEFAULT_FILE) -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def uncommented(text: str) -> str:
    return re.sub(r"^#(?=[a-z_]+ = )", "", text, flags=re.MULTILINE)


# --- what is written ------------------------------------------------------------------------------


def test_the_file_changes_nothing_until_a_line_is_uncommented() -> None:
    assert all(values == {} for values in tomllib.loads(as_toml()).values())
    put(as_toml())
    assert read() == Settings()


def test_uncommented_every_setting_is_there_with_its_default() -> None:
    written = tomllib.loads(uncommented(as_toml()))
    assert written == Settings().model_dump(mode="json")
    put(uncommented(as_toml()))
    assert read() == Settings()


def test_above_every_setting_stands_what_it_means_and_what_it_may_be() -> None:
    text = as_toml()
    for setting in every_setting():
        section = text.partition(f"\n[{setting.group}]\n")[2].partition("\n[")[0]
        above = section.partition(f"\n#{setting.name} = ")[0].splitlines()
        assert above[-2:] == [f"# {setting.note}", f"# {setting.range}"]
    assert len(list(every_setting())) == len(describe())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ingest.timeout_s", ("number, more than 0, at most 120", "seconds", "10.0")),
        ("ingest.rate_per_s", ("number, 0 to 10,000", "a second", "50.0")),
        ("ingest.refetch", ("true or false", "", "false")),
        ("ingest.on_delisted", ("one of fail, skip", "", '"fail"')),
        ("dataset.window_min", ("whole number, 2 to 240", "minutes", "60")),
        ("dataset.horizons_min", ("list of whole numbers, 1 to 60, not empty", "minutes", "[5]")),
        ("dataset.max_filled_share", ("number, at least 0, less than 1", "share of 1", "0.2")),
        ("dataset.exclude_days", ("list of days as text, such as 2026-03-16", "days", "[]")),
        ("training.resident_mib", ("whole number, 1 to 1,000,000", "MiB", "4096")),
        ("training.timeout_s", ("number, more than 0", "seconds", "3600.0")),
        ("gate.min_skill", ("number, -1 to 1", "", "0.0")),
        ("serving.kinesis_stream", ("text that matches `^[A-Za-z0-9_.-]{0,128}$`", "", '""')),
    ],
)
def test_a_setting_s_facts_are_those_of_the_model(name: str, expected: tuple[str, str, str]) -> None:
    found = {f"{one.group}.{one.name}": (one.allowed, one.unit, one.default) for one in every_setting()}
    assert found[name] == expected


def test_the_reference_is_that_of_the_model() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == as_markdown(), (
        "type `stockflow settings --markdown > docs/settings.md`"
    )
    rows = [line for line in as_markdown().splitlines() if line.startswith("| `")]
    assert len(rows) == len(list(every_setting()))
    assert all(len(re.split(r"(?<!\\)\|", row)) == 7 for row in rows)


def test_words_for_schemas_that_no_setting_has_yet() -> None:
    assert allowed({"const": "s3", "type": "string"}) == "one of s3"
    assert allowed({"type": "string"}) == "text"
    assert allowed({"type": "string", "format": "date"}) == "a day as text, such as 2026-03-16"
    assert allowed({"type": "array", "items": {"enum": ["a", "b"]}}) == "list of a, b"
    assert unit("seed") == ""
    assert unit("days") == "days"


# --- init -----------------------------------------------------------------------------------------


def test_init_writes_the_file_and_says_who_reads_it(stockflow: Callable[..., Any]) -> None:
    said = "is written: remove the # before a setting to change it;"
    assert stockflow("init") == (0, f"stockflow.toml {said} `stockflow run` reads it\n", "")
    assert Path("stockflow.toml").read_text() == as_toml()
    assert stockflow("init", "a.toml")[1] == f"a.toml {said} `stockflow run --settings a.toml` reads it\n"


def test_init_replaces_a_file_only_by_force(stockflow: Callable[..., Any]) -> None:
    put("[training]\nepochs = 8\n")
    told = "stockflow: stockflow.toml exists: name another file, or replace it with --force\n"
    assert stockflow("init") == (2, "", told)
    assert read().training.epochs == 8
    assert stockflow("init", "--force")[0] == 0
    assert read() == Settings()


@pytest.mark.parametrize("path", ["missing/a.toml", "/proc/a.toml"])
def test_a_file_that_cannot_be_written_is_one_line(path: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{path} cannot be written \(.+\): name another file$"):
        write_file(Path(path), force=False)


# --- who reads it, and who wins ---------------------------------------------------------------------


def test_the_file_of_the_current_folder_is_read_unless_another_is_named() -> None:
    put("[training]\nepochs = 8\n")
    other = put("[training]\nranks = 3\n", "other.toml")
    assert (read().training.epochs, read().training.ranks) == (8, 2)
    assert (read(other).training.epochs, read(other).training.ranks) == (4, 3)
    by_variable = read(STOCKFLOW_SETTINGS_FILE="other.toml")
    assert by_variable == read(other)
    assert read(Path(DEFAULT_FILE), STOCKFLOW_SETTINGS_FILE="other.toml").training.epochs == 8


def test_an_empty_variable_lets_no_file_be_looked_for() -> None:
    put("nonsense")
    assert read(STOCKFLOW_SETTINGS_FILE="") == Settings()


def test_without_a_file_the_environment_is_as_it_was() -> None:
    assert with_file({"A": "b"}, [], None) == {"A": "b"}


def test_the_environment_wins_over_the_file_and_a_flag_over_both() -> None:
    put("[training]\nepochs = 8\nranks = 3\nbatch = 64\n[serving]\nspeed = 60\n")
    found = read(None, "training.batch=32", STOCKFLOW_SETTINGS='{"training": {"ranks": 4, "batch": 128}}')
    assert (found.training.epochs, found.training.ranks, found.training.batch) == (8, 4, 32)
    assert found.serving.speed == 60
    assert found.training.seed == Settings().training.seed


def test_a_file_is_read_once_and_what_is_started_in_turn_is_told_its_settings() -> None:
    path = put("[training]\nepochs = 8\n")
    environ = with_file({}, [], None)
    path.write_text("nonsense")
    assert with_file(environ, [], None) == environ
    assert load(environ).training.epochs == 8


def test_days_may_be_toml_s_own_or_text() -> None:
    put('[dataset]\nexclude_days = [2026-03-16, "2026-03-17"]\n')
    assert [day.isoformat() for day in read().dataset.exclude_days] == ["2026-03-16", "2026-03-17"]


def test_a_phase_reads_the_file(stockflow: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Settings, Any]] = []

    def train(place: Any, settings: Settings, environ: Any, report: Any) -> None:
        told.append((settings, environ))
        raise SettingsError("enough")

    monkeypatch.setattr("app.training.launch.run_training", train)
    put("[training]\nepochs = 8\n")
    named = put("[training]\nepochs = 9\n", "named.toml")
    assert stockflow("train")[0] == 2
    assert stockflow("train", "--settings", str(named), "--set", "training.ranks=3")[0] == 2
    assert [(settings.training.epochs, settings.training.ranks) for settings, _ in told] == [(8, 2), (9, 3)]
    assert all(environ[contract.ENV_SETTINGS_FILE] == "" for _, environ in told)


def test_run_reads_the_file(stockflow: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Settings] = []

    def run(options: Any, environ: Any) -> int:
        told.append(load(environ, options.flags))
        return 0

    monkeypatch.setattr("embedded.run.run", run)
    put("[dataset]\nhorizons_min = [2]\n")
    assert stockflow("run", "--set", "training.epochs=2")[0] == 0
    assert (told[0].dataset.horizons_min, told[0].training.epochs) == ((2,), 2)
    assert told[0].model_fields_set == {"dataset", "training"}


def test_scale_takes_the_file_as_flags(stockflow: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr("app.scaling.run.run_scale", lambda sweep, *rest: told.append(sweep))
    put('[training]\nlstm_units = 8\nprecision = "float32"\n')
    assert stockflow("scale", "--set", "training.lstm_units=9")[0] == 0
    assert told[0].flags == ("training.lstm_units=9", 'training.precision="float32"')
    assert told[0].settings(told[0].cases[0]).training.lstm_units == 9


def test_start_puts_the_file_s_settings_under_those_of_the_input(
    stockflow: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr("embedded.daemon.attach", lambda folder: "local")

    def start(local: str, text: str) -> str:
        told.append(text)
        return "arn:1"

    monkeypatch.setattr("embedded.operate.start_execution", start)
    assert stockflow("start") == (0, "arn:1\n", "")
    put("[training]\nepochs = 8\nranks = 3\n[gate]\nmin_skill = -1\n")
    asked = {"phases": ["train"], "settings": {"training": {"epochs": 9}}, "training": {"instances": 2}}
    put(json.dumps(asked), "input.json")
    assert stockflow("start", "--input", "input.json", "--set", "training.batch=32")[0] == 0
    assert told[0] == "{}"
    assert json.loads(told[1]) == {
        "phases": ["train"],
        "settings": {"training": {"epochs": 9, "batch": 32}, "gate": {"min_skill": -1}},
        "training": {"instances": 2, "processes": 3},
    }


@pytest.mark.parametrize("text", ["{", "[]", '{"settings": []}', '{"run_id": "r"}'])
def test_what_holds_no_settings_is_left_to_the_state_machine(text: str) -> None:
    flags = [] if "run_id" in text else ["training.epochs=8"]
    assert with_settings(text, {}, flags) == text


def test_a_wrong_setting_of_the_input_is_told_before_it_is_started() -> None:
    with pytest.raises(SettingsError, match=r"^setting training\.epochs=0: input should be greater"):
        with_settings('{"settings": {"training": {"epochs": 0}}}', {}, ["training.batch=32"])


# --- what a wrong one is told -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nepoch = 3", r"unknown setting training\.epoch: allowed are .+; did you mean training\.epochs\?"),
        ("[train]\nepochs = 3", r"unknown setting train: allowed are ingest, .+; did you mean training\?"),
        ("epochs = 3", r"unknown setting epochs: allowed are ingest, .+; did you mean training\.epochs\?"),
        ("[serving]\nquantum = 3", r"unknown setting serving\.quantum: allowed are serving\.source, .+_s"),
        (
            '[training]\nepochs = "3"',
            r"setting training\.epochs='3': input should be a valid integer"
            r" \(passes over the training windows: whole number, 1 to 1,000\)",
        ),
        (
            "[dataset]\nhorizons_min = 2",
            r"setting dataset\.horizons_min=2: input should be a valid array \(minutes .+, such as \[5\]\)",
        ),
        (
            '[serving]\nfeed = "tape"',
            r"setting serving\.feed='tape': input should be 'replay', 'live' or 'socket' \(what the feed brings: .+\)",
        ),
        ("training = 3", r"setting training=3: input should be an object"),
        ("[training]\ntimeout_s = inf", r"setting training\.timeout_s=inf: input should be a finite number \(.+\)"),
        ("[dataset]\nhorizons_min = [5, 2]", r"dataset\.horizons_min must ascend, each horizon once"),
        ("[serving]\npartitions = 3", r"serving\.buckets must be at least serving\.partitions, or tasks stay empty"),
    ],
)
def test_a_wrong_file_is_told_by_its_name_the_setting_and_what_is_allowed(text: str, message: str) -> None:
    put(text)
    with pytest.raises(SettingsError) as caught:
        read()
    assert re.fullmatch(rf"stockflow\.toml: {message}", str(caught.value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[training\n", r"stockflow\.toml is not TOML: .+ \(at line 1, column 10\); a setting is a line such as .+"),
        (b"[training]\nfeed = live\n", r"stockflow\.toml is not TOML: .+ \(at line 2, column 8\); .+"),
        (b"\xff", r"stockflow\.toml is not TOML: .+"),
    ],
)
def test_what_is_no_toml_is_told_where(text: bytes, message: str) -> None:
    Path(DEFAULT_FILE).write_bytes(text)
    with pytest.raises(SettingsError) as caught:
        read()
    assert re.fullmatch(message, str(caught.value))


def test_a_file_that_is_not_there_is_told_how_to_write_one(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"^settings file a\.toml does not exist: `stockflow init a\.toml` writes"):
        read(Path("a.toml"))
    with pytest.raises(SettingsError, match=r"^settings file b\.toml does not exist"):
        read(STOCKFLOW_SETTINGS_FILE="b.toml")
    with pytest.raises(SettingsError, match=r"^settings file .+ cannot be read \(Is a directory\)$"):
        read(folder)


def test_the_file_is_not_blamed_for_what_is_wrong_elsewhere() -> None:
    put("[training]\nepochs = 3\n")
    with pytest.raises(SettingsError, match=r"^setting training\.ranks=0: "):
        read(None, "training.ranks=0")
    with pytest.raises(SettingsError, match=r"^STOCKFLOW_SETTINGS is not JSON"):
        read(STOCKFLOW_SETTINGS="{")


def test_the_file_and_a_flag_may_complete_each_other() -> None:
    put("[serving]\npartitions = 4\n")
    assert read(None, "serving.buckets=4").serving.partitions == 4
    put('[serving]\nsocket_address = "127.0.0.1:9999"\n')
    assert read(None, "serving.feed=socket").serving.socket_address == "127.0.0.1:9999"


def test_a_command_tells_a_wrong_file_in_one_line(stockflow: Callable[..., Any]) -> None:
    put("[training]\nepoch = 3\n")
    for command in ("run", "start", "dataset", "serve", "scale"):
        status, out, err = stockflow(command)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("stockflow: stockflow.toml: unknown setting training.epoch: allowed are ")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("training.epoch", "training.epochs"),
        ("trainig", "training"),
        ("dataset.horizon_min", "dataset.horizons_min"),
        ("dataset.horizon", "dataset.horizons_min"),
        ("ingest.epochs", "training.epochs"),
        ("min_skill", "gate.min_skill"),
        ("serving.quantum", None),
        ("training.gpus", None),
    ],
)
def test_the_nearest_known_name_is_offered(wrong: str, right: str | None) -> None:
    schema = Settings.model_json_schema()
    assert nearest(wrong, names_in(schema, schema)) == right


# --- completion -------------------------------------------------------------------------------------


def completed(line: str, shell: str = "bash") -> list[str]:
    environ = {
        **os.environ,
        "_STOCKFLOW_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    command = [str(Path(sys.executable).with_name("stockflow"))]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


def test_commands_options_and_settings_are_completed() -> None:
    assert completed("stockflow do") == ["plain,doctor", "plain,down"]
    assert completed("stockflow doctor --j") == ["plain,--json"]
    assert completed("stockflow run --set training.epo") == ["plain,training.epochs=4"]


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", "complete -o nosort -F _stockflow_completion stockflow"),
        ("zsh", "#compdef stockflow"),
        ("fish", "complete --no-files --command stockflow --arguments"),
    ],
)
def test_the_script_of_each_shell_is_printed(stockflow: Callable[..., Any], shell: str, line: str) -> None:
    status, out, err = stockflow("completion", shell)
    assert (status, err) == (0, "")
    assert line in out


def test_bash_takes_the_script(tmp_path: Path) -> None:
    stockflow = Path(sys.executable).with_name("stockflow")
    script = f'eval "$({stockflow} completion bash)"; complete -p stockflow'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, timeout=60)  # noqa: S607
    assert done.stdout == "complete -o nosort -F _stockflow_completion stockflow\n"
    assert done.stderr == ""
