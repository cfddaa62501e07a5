"""`stockflow report`: one HTML file of a run that needs nothing else, and its figures as PNG files."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import markdown
from jinja2 import Environment, FileSystemLoader, Template
from markdown.extensions.toc import TocExtension
from markupsafe import Markup

from app.consumer.source import RUN_SUMMARY
from app.errors import StockflowError
from app.report import facts, figures
from app.report.read import BenchFiles, RunFiles, open_run, settings_rows, without_places
from embedded.fates import coverage_lines
from embedded.summary import FIGURES

_FOREIGN: Final = ("link", "image_link", "image_reference", "reference", "short_reference", "short_image_ref", "html")
"""Inline patterns by which Markdown could name what would be fetched, or pass on HTML."""

Figure = Mapping[str, Any]


def write_report(folder: Path, out: Path, bench: Path, environ: Mapping[str, str], now: datetime) -> Path:
    """Write the report of the run in `folder` to `out`, and the figures below `folder`; returns `out`.

    Raises SettingsError when there is no such folder, StockflowError when a file cannot be read or written.
    """
    run, timed = open_run(folder), BenchFiles(bench)
    text = _page(run, timed, _figure_folder(folder), environ, now)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise StockflowError(f"{out} cannot be written ({exc.strerror}): name another file with --out") from exc
    return out


def _figure_folder(folder: Path) -> Path:
    """Where the figures of an earlier report are replaced, and nothing else is touched."""
    found = folder / FIGURES
    try:
        found.mkdir(exist_ok=True)
    except OSError as exc:
        raise StockflowError(f"{found} cannot be written ({exc.strerror})") from exc
    return found


def _page(run: RunFiles, bench: BenchFiles, folder: Path, environ: Mapping[str, str], now: datetime) -> str:
    summary, problems = run.summary, dict[str, str]()

    def tried(name: str, make: Callable[[], Any]) -> Any:
        """What a section shows; where its files are another version's, why it shows nothing."""
        try:
            return make()
        except (StockflowError, ArithmeticError, LookupError, TypeError, ValueError) as exc:
            told = str(exc) if isinstance(exc, StockflowError) else f"what lies there is not as expected ({exc!r})"
            problems[name] = without_places(told)
            return []

    def drawn(name: str, make: Callable[[], list[Path]]) -> list[Figure]:
        return [_figure(path) for path in tried(name, make)]

    examples = tried("forecasts", run.examples) or {}
    used = summary.get("settings", {})
    rows = settings_rows(used)
    text: str = _template().render(
        run=run,
        summary=summary,
        run_file=RUN_SUMMARY,
        written=now.strftime("%Y-%m-%d %H:%M UTC"),
        market=Path(str(summary.get("market", ""))).name,
        error=without_places(str(summary.get("error") or "")),
        bench=bench,
        ingest=drawn("ingest", lambda: figures.draw_ingest(run, bench, folder)),
        training=drawn("training", lambda: figures.draw_training(run, bench, folder)),
        prediction=drawn("prediction", lambda: figures.draw_prediction(bench, folder)),
        coverage=drawn("coverage", lambda: figures.draw_coverage(run, folder) if run.coverage.get("tickers") else []),
        faults=tried("faults", lambda: [*map(without_places, coverage_lines(run.coverage))] if run.coverage else []),
        card=_card(run.card),
        accuracy=tried("accuracy", run.accuracy),
        forecasts=drawn("forecasts", lambda: figures.draw_forecasts(examples, folder) if examples else []),
        changed=[row for row in rows if row[1] != row[2]],
        settings=rows,
        versions=facts.versions(environ),
        costs=tried("costs", lambda: facts.costs(used, summary.get("tickers_requested")) if used else None),
        problems=problems,
    )
    return text


def _figure(path: Path) -> Figure:
    encoded = base64.b64encode(path.read_bytes()).decode()
    return {"name": path.stem.replace("_", " "), "data": f"data:image/png;base64,{encoded}"}


def _card(text: str) -> Markup:
    """The card's Markdown as HTML, in which HTML stays text and nothing is linked."""
    made = markdown.Markdown(extensions=["tables", TocExtension(baselevel=3, slugify=lambda word, mark: "")])
    made.preprocessors.deregister("html_block")
    for pattern in (*_FOREIGN, "autolink", "automail"):
        made.inlinePatterns.deregister(pattern)
    return Markup(made.convert(text))  # noqa: S704 - escaped by what was taken out of it


def _template() -> Template:
    """The page, every value in it escaped."""
    place = FileSystemLoader(Path(__file__).parent)
    made = Environment(loader=place, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return made.get_template("template.html")
