"""The report of a run: every section with its figures, what is said where something is missing, nothing fetched."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.image import imread

from app.cli import cli
from app.errors import SettingsError, StockflowError
from app.report import facts, figures
from app.report.page import write_report
from app.report.read import BenchFiles, RunFiles, without_places
from app.scaling.original import EPOCH_SEQUENCES, training_rows
from app.serving.latest import LatestPredictions
from app.settings import Settings
from app.storage import Bucket
from embedded.summary import check_run_folder
from tests.fakes import FakeS3, make_sessions
from tests.predictions import predict, store

NOW = datetime(2026, 3, 24, 20, 30, tzinfo=UTC)
MONDAY, TUESDAY = make_sessions(390, 210)
DAYS = [MONDAY.day.isoformat(), TUESDAY.day.isoformat()]
HOSTILE = "<script>alert(1)</script>"
DRAWN = {
    *("ingest_wall", "ingest_speedup", "training_speedup", "training_s_per_step", "training_s_per_epoch"),
    *("serving_update", "serving_ticker", "coverage", "forecast_1", "forecast_2"),
}
CARD = f"""# Model m

Forecasts `log_return`. {HOSTILE} [here](javascript:alert) ![x](http://example.com/x.png) <http://example.com>

| minutes ahead | skill |
| --- | --- |
| 5 | +0.0412 |

<iframe src="http://example.com"></iframe>
"""


def put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def covered(name: str, **changes: Any) -> dict[str, Any]:
    """A ticker of coverage.json."""
    return {"ticker": name, "status": "complete", "rows": 600, "error": "", "days": {}, "missing": {}, **changes}


def summary(**changes: Any) -> dict[str, Any]:
    settings = Settings().model_dump(mode="json")
    settings["training"]["epochs"] = 9
    settings["serving"]["socket_address"] = "feed.example.com:9000"
    phases = [
        {"name": name, "status": "succeeded", "wall_s": seconds, "rows": rows, "where": "s3://bucket/place/"}
        for name, seconds, rows in (("ingest", 9.945, 74094), ("train", 35.04, 40443), ("serve", 58.76, None))
    ]
    return {
        "market": "/home/someone/data/bars.parquet", "run_id": "run-1", "status": "succeeded", "error": None,
        "phases": phases, "tickers_requested": 3, "bars": 74094, "windows_train": 40443, "predictions": 7779,
        "peak_rss_mib": 2513, "days": DAYS, "volume_faults": 2, "volume_fault_days": DAYS[:1], "model_id": "m",
        "settings": settings, **changes,
    }  # fmt: skip


def plant(folder: Path, *, names: tuple[str, str] = ("AAA", "BBB"), **changes: Any) -> Path:
    """A small run: two tickers with forecasts, three that were asked for."""
    put(folder / "summary.json", summary(**changes))
    put(
        folder / "plan.json",
        {"sessions": [{"day": day.day.isoformat(), "minutes": day.minutes} for day in (MONDAY, TUESDAY)]},
    )
    gaps = {"days": {DAYS[1]: "partial"}, "missing": {DAYS[1]: 21}, "status": "partial"}
    gone = {"status": "delisted", "rows": 0, "error": "GONE: no data found"}
    tickers = [covered(names[0]), covered(names[1], **gaps), covered("GONE", **gone)]
    counts = {"complete": 1, "partial": 1, "delisted": 1, "failed": 0}
    by_day = {DAYS[0]: {"complete": 2, "delisted": 1}, DAYS[1]: {"complete": 1, "partial": 1, "delisted": 1}}
    put(
        folder / "coverage.json",
        {
            "days": DAYS,
            "requested": 3,
            "statuses": counts,
            "by_day": by_day,
            "faults": {"bad_price": 4},
            "tickers": tickers,
        },
    )
    history = [
        {"s_per_epoch": 9.0, "s_per_step": 0.9, "sequences_per_s": 100.0},
        {"s_per_epoch": 3.0, "s_per_step": 0.1, "sequences_per_s": 5000.0},
    ]
    judged = {"windows": 5201, "skill": 0.0771}
    metrics = {"ranks": 2, "batch": 256, "history": history, "validation": judged, "test": judged}
    put(folder / "models/m/metrics.json", metrics)
    put(folder / "models/m/decision.json", {"promote": True, "reason": "it is not below gate.min_skill=0"})
    put(folder / "models/m/card.md", CARD)
    random = np.random.default_rng(3)
    closes = {name: 100 * np.exp(random.normal(0, 1e-3, 40).cumsum()) for name in names}
    held = Bucket("all", client=FakeS3())
    table = predict(TUESDAY, closes, horizons=(1, 5), width=0.002)
    store(held, TUESDAY, table)
    LatestPredictions(held).write(table)
    for key in held.keys(""):
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(held.get(key))
    return folder


def plant_bench(folder: Path) -> Path:
    def median(value: float) -> dict[str, float]:
        return {"median": value}

    put(
        folder / "ingest.json",
        {
            "settings": {"tickers": 100, "days": 5, "latency_ms": 150.0}, "machine": {"cores": 2},
            "naive_s": median(40.0), "original_s": median(12.0), "ours_s": median(0.5),
            "scaling": {"workers": {"1": {"wall_s": median(4.0)}, "2": {"wall_s": median(2.5)}}},
        },
    )  # fmt: skip
    rates = [("ours_1_rank", 1, 256, 20000.0), ("ours_2_ranks", 2, 256, 40000.0), ("keras_fit", 1, 256, 9000.0)]
    rows = [{"arm": a, "ranks": r, "batch": b, "sequences_per_s": median(s)} for a, r, b, s in rates]
    put(folder / "training.json", {"rows": rows})
    put(folder / "serving.json", {"rows": [{"tickers": 500, "original_s": 30.8, "micro_batch_s": 0.36}]})
    return folder


class Page(HTMLParser):
    """What a page says, section by section, and what it names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: dict[str, str] = {"": ""}
        self.tags: list[str] = []
        self.named: list[tuple[str, str]] = []
        self._at = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        told = {name: value or "" for name, value in attrs}
        if tag == "section":
            self._at = told["id"]
            self.sections[self._at] = ""
        self.named += [(name, told[name]) for name in ("src", "href", "srcset", "action", "data") if name in told]
        assert not any(name.startswith("on") or name == "style" for name in told)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.sections[self._at] += f"{' '.join(data.split())} "


Write = Callable[..., Page]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a report and reads it."""
    monkeypatch.setattr(facts, "versions", lambda environ: [("Python", "3.11.7"), ("keras", "3.15.0")])

    def page(folder: Path, bench: Path = tmp_path / "no-bench") -> Page:
        return Page(write_report(folder, folder / "report.html", bench, {}, NOW).read_text(encoding="utf-8"))

    return page


def test_every_section_has_the_run_s_own_figures(write: Write, tmp_path: Path) -> None:
    said = write(plant(tmp_path / "run"), plant_bench(tmp_path / "bench")).sections
    assert "run-1 succeeded market bars.parquet · written 2026-03-24 20:30 UTC" in said[""]
    assert "ingest succeeded 9.9 74,094 train succeeded 35.0 40,443 serve succeeded 58.8 -" in said["run"]
    assert "40,443 training windows 7,779 predictions 2,513 MiB" in said["run"]
    assert "make bench" not in said["then"]
    assert "3 tickers x 2 sessions: 1 complete, 1 partial, 1 delisted" in said["coverage"]
    assert f"BBB partial: {DAYS[1]} lacks 21 minutes" in said["coverage"]
    assert "bad_price 4" in said["coverage"]
    assert f"2 ticker-days, on {DAYS[0]}" in said["coverage"]
    assert "Promoted: it is not below gate.min_skill=0." in said["model"]
    assert "minutes ahead skill 5 +0.0412" in said["model"]
    assert "1 78 " in said["forecasts"]  # of 40 minutes of each ticker all but the last are known
    assert "5 70 " in said["forecasts"]
    assert "Other than the defaults: setting value default" in said["settings"]
    assert "training.epochs 9 " in said["settings"]
    assert "Python 3.11.7 keras 3.15.0" in said["versions"]
    assert "one run" in said["cost"]
    assert not any("Not shown" in text for text in said.values())


def test_the_cost_is_that_of_stockflow_cost_for_these_settings() -> None:
    used = summary()["settings"]
    told, more = facts.costs(used, 3), facts.costs(used, 3000)
    assert sum(told.phases.values()) == pytest.approx(told.run)
    assert more.run > told.run > 0
    assert list(told.phases) == ["ingest", "dataset", "train", "serve", "workflow"]
    with pytest.raises(SettingsError, match="no_such"):
        facts.costs({"training": {"no_such": 1}}, 3)


def test_figures_are_png_files_that_are_not_blank_and_stand_in_the_page(write: Write, tmp_path: Path) -> None:
    folder = plant(tmp_path / "run")
    page = write(folder, plant_bench(tmp_path / "bench"))
    files = list((folder / "figures").iterdir())
    assert {path.name for path in files} == {f"{name}.png" for name in DRAWN}
    for path in files:
        picture = imread(path)
        assert picture.shape[1] >= 1000
        assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 20
    assert page.tags.count("img") == len(DRAWN)


def test_nothing_is_fetched_and_nothing_is_run(write: Write, tmp_path: Path) -> None:
    page = write(plant(tmp_path / "run"), plant_bench(tmp_path / "bench"))
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert {value.partition(",")[0] for name, value in page.named if name != "href"} == {"data:image/png;base64"}
    assert all(value.startswith("#") for name, value in page.named if name == "href")
    text = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import", text)


def test_the_same_folder_gives_the_same_bytes(write: Write, tmp_path: Path) -> None:
    folder, bench = plant(tmp_path / "run"), plant_bench(tmp_path / "bench")
    read = (folder / "report.html").read_bytes
    write(folder, bench)
    first = read()
    write(folder, bench)
    assert read() == first


def test_without_benchmarks_the_2021_curves_stand_with_the_run_s_own_point(write: Write, tmp_path: Path) -> None:
    folder = plant(tmp_path / "run")
    said = write(folder).sections["then"]
    assert re.findall(r"make bench-\w+", said) == ["make bench-ingest", "make bench-training", "make bench-serving"]
    run, bench = RunFiles(folder), BenchFiles(tmp_path / "no-bench")
    (point,) = figures._training_points(run, bench)
    assert point.times is not None
    assert (point.case.ranks, point.case.effective_batch) == (2, 512)
    assert point.times.s_per_epoch == EPOCH_SEQUENCES / 5000
    (line,) = [line for line in figures._ingest_lines(run, bench) if not line.name.startswith("2021")]
    assert (line.name, line.seconds) == ("this run: 3 tickers x 2 sessions", {"1 process": 9.945})


def test_benchmarks_stand_over_the_2021_figures(tmp_path: Path) -> None:
    run, bench = RunFiles(tmp_path), BenchFiles(plant_bench(tmp_path / "bench"))
    lines = {line.name.partition(":")[0]: line for line in figures._ingest_lines(run, bench)[3:]}
    assert {name: line.seconds for name, line in lines.items()} == {
        "its ways, here": {"sequential": 40.0, "2": 12.0},
        "ours": {"1 process": 0.5},
        "ours by workers, with their start, over one": {"1 process": 4.0, "2": 2.5},
    }
    assert [line.first for line in lines.values()] == [40.0, 40.0, 4.0]
    points = figures._training_points(run, bench)
    assert [(row.case.ranks, row.times and row.times.sequences_per_s) for row in points] == [(1, 20000.0), (2, 40000.0)]
    epochs = {
        (row.case.nodes, row.case.gpus, row.case.batch): row.times.s_per_epoch for row in training_rows() if row.times
    }
    assert epochs[4, 1, 32] == pytest.approx(72.5)


def test_a_cell_of_the_heat_map_is_the_share_of_the_session_s_minutes() -> None:
    minutes = {DAYS[1]: 210}
    lacking = covered("A", status="partial", missing={DAYS[1]: 21})
    assert figures.share_of(lacking, DAYS[1], minutes) == 0.9
    assert figures.share_of(lacking, DAYS[0], minutes) == 1
    assert figures.share_of(covered("A", status="delisted", rows=0), DAYS[0], minutes) == 0


def test_an_empty_folder_says_what_to_run_and_stays_one_that_a_run_may_take(write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    said = write(folder).sections
    assert said[""].startswith(("stockflow: no run", "No run yet")) or "No run yet" in said[""]
    for section in ("run", "coverage", "model", "forecasts", "settings", "cost"):
        assert "make run" in said[section], section
    assert check_run_folder(folder) == folder
    put(folder / "thesis.txt", "mine")
    with pytest.raises(SettingsError, match="something else"):
        check_run_folder(folder)


def test_a_failed_run_says_why_and_shows_what_there_is(write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    phases = [
        {"name": "ingest", "status": "failed", "wall_s": 1.0, "rows": None, "where": None},
        {"name": "train", "status": "not started", "wall_s": 0.0, "rows": None, "where": None},
    ]
    nothing = dict.fromkeys(("bars", "windows_train", "predictions", "model_id", "volume_faults"))
    error = "ingest: nothing at /home/someone/secret/bars.parquet, see s3://bucket/runs/x/"
    put(folder / "summary.json", summary(status="failed", error=error, phases=phases, **nothing))
    said = write(folder).sections
    assert "ingest: nothing at bars.parquet, see s3://bucket/runs/x/" in said["run"]
    assert "ingest failed 1.0 - train not started" in said["run"]
    assert "No model was trained" in said["model"]
    assert "There are no predictions" in said["forecasts"]


def test_what_another_version_left_costs_its_section_alone(write: Write, tmp_path: Path) -> None:
    folder = plant(tmp_path / "run", settings={"dataset": {"horizon_min": 5}})
    put(folder / "coverage.json", {"days": DAYS, "tickers": [{"ticker": "AAA"}]})
    said = write(folder).sections
    assert "Not shown" in said["coverage"]
    assert "Not shown" in said["cost"]
    assert "dataset.horizon_min 5 no setting of this version" in said["settings"]
    assert "Promoted" in said["model"]


def test_hostile_text_stays_text(write: Write, tmp_path: Path) -> None:
    evil = f"$\\frac{HOSTILE}"
    folder = plant(tmp_path / "run", names=("AAA", evil), status="failed", error=f"train: {HOSTILE}", run_id=HOSTILE)
    page = write(folder)
    assert "script" not in page.tags
    assert "iframe" not in page.tags
    assert HOSTILE in page.sections["run"]
    assert HOSTILE in page.sections["model"]
    assert "<script" not in (folder / "report.html").read_text(encoding="utf-8")
    assert (folder / "figures/forecast_1.png").is_file()


def test_places_are_left_out(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.node", lambda: "someones-laptop")
    assert without_places("x /a/b/c.py y on someones-laptop") == "x c.py y on this machine"
    assert without_places("s3://bucket/a/b and 3/4 and a/b/c") == "s3://bucket/a/b and 3/4 and a/b/c"
    write(plant(tmp_path / "run"))
    text = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    for place in (str(tmp_path), "/home/", "feed.example.com"):
        assert place not in text


def test_versions_are_those_that_are_found(tmp_path: Path) -> None:
    found = dict(facts.versions({"PATH": str(tmp_path), "JAVA_HOME": str(tmp_path)}))
    assert found["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["keras"]
    assert "Java" not in found


def test_the_command_writes_where_it_is_told(tmp_path: Path) -> None:
    folder, out = plant(tmp_path / "run"), tmp_path / "new/page.html"
    done = CliRunner().invoke(cli, ["report", "--from", str(folder), "--out", str(out)], catch_exceptions=False)
    assert (done.exit_code, done.output) == (0, f"report: {out}\n")
    assert "run-1" in out.read_text(encoding="utf-8")
    assert not (folder / "report.html").exists()
    with pytest.raises(SettingsError, match="make run"):
        CliRunner().invoke(cli, ["report", "--from", str(tmp_path / "none")], catch_exceptions=False)
    put(folder / "summary.json", "{")
    with pytest.raises(StockflowError, match=r"summary\.json cannot be read as JSON"):
        CliRunner().invoke(cli, ["report", "--from", str(folder)], catch_exceptions=False)


@pytest.mark.parametrize("status", [0, 3])
def test_a_run_leaves_its_report_and_its_exit_code_is_its_own(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = plant(tmp_path / "run")
    monkeypatch.setattr("embedded.run.run", lambda options, environ: status)
    done = CliRunner().invoke(cli, ["run", "--out", str(folder)])
    assert (done.exit_code, done.output) == (status, f"report: {folder / 'report.html'}\n")
    monkeypatch.setattr("app.report.page.write_report", lambda *given: (_ for _ in ()).throw(OSError("disk\nfull")))
    done = CliRunner().invoke(cli, ["run", "--out", str(folder)])
    assert (done.exit_code, done.output) == (status, "no report: disk full\n")


def test_nothing_of_it_is_imported_before_it_is_written() -> None:
    code = "import sys; from app.cli import cli; cli(['report', '--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert not loaded & {"matplotlib", "jinja2", "markdown", "numpy", "pyarrow", "infra", "embedded"}
