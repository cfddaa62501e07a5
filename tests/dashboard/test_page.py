"""The page in a real browser over a real S3: what it shows, that it follows, what it says when there is nothing."""

from __future__ import annotations

import http.client
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from app import contract
from app.errors import StorageError
from app.storage import Bucket
from dashboard.listener import listen, url_of
from dashboard.machine import Machine
from dashboard.server import make_app, serving
from dashboard.source import Source
from dashboard.watch import Watch
from embedded.aws.account import client
from embedded.services import clean_environ, start_aws
from tests.dashboard import expected
from tests.dashboard.browser import TIMEOUT_MS, Seen, chromium, opened
from tests.dashboard.planted import (
    HORIZONS,
    MINUTES,
    MODEL,
    OLDER,
    PREDICTED,
    RUN,
    Buckets,
    model_metrics,
    predicted_return,
    price,
    write_health,
    write_predictions,
    write_run,
)
from tests.dashboard.stepfunctions import MACHINE, FakeStates

expect.set_options(timeout=TIMEOUT_MS)
SECTIONS = [
    "Execution",
    "Training",
    "Stream",
    "Predictions against prices",
    "Error against “the price stays”",
    "Predicted moves of the market",
    "Coverage by ticker and day",
    "Models and promotions",
]
STATES = ["ValidateInput", "PlanShards", "IngestShards"]
TOO_WIDE = """width => [...document.querySelectorAll('section, .js-plotly-plot')]
    .filter(part => part.getBoundingClientRect().right > width).map(part => part.innerText)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    service = start_aws(0, clean_environ(os.environ))
    yield service.url
    service.stop()


@pytest.fixture(scope="module")
def made(aws: str) -> Callable[[str], Buckets]:
    """Makes three empty buckets."""

    def make(name: str) -> Buckets:
        s3 = client("s3", aws)
        names = [f"{name}-{role}" for role in ("market", "model", "predictions")]
        for bucket in names:
            s3.create_bucket(Bucket=bucket)
        return Buckets(*(Bucket(bucket, s3) for bucket in names))

    return make


@pytest.fixture(scope="module")
def planted(made: Callable[[str], Buckets]) -> Buckets:
    buckets = made("planted")
    write_run(buckets)
    return buckets


def source_of(buckets: Buckets, states: FakeStates | None = None) -> Source:
    machine = Machine(states, MACHINE) if states else None
    return Source(buckets.market, buckets.models, buckets.predictions, machine, "the tests' S3")


@contextmanager
def served(find: Callable[[], Source], run_id: str = "") -> Iterator[str]:
    """The page over a source, read several times a second; yields its URL."""
    watch = Watch(find, every_s=0.3)
    watch.start()
    with listen(0) as listener, serving(listener, make_app(watch, run_id)):
        yield url_of(listener)


@pytest.fixture(scope="module")
def page(browser: Browser, planted: Buckets) -> Iterator[Seen]:
    """The planted run's page, without Step Functions; tests change nothing in its buckets."""
    with served(lambda: source_of(planted)) as url, opened(browser, url) as seen:
        seen.page.wait_for_selector("#accuracy")
        yield seen


def test_every_section_has_its_heading(page: Seen) -> None:
    assert page.page.title() == "stockflow"
    assert page.page.locator("section > h2").all_inner_texts() == SECTIONS
    expect(page.page.locator("#welcome")).to_have_count(0)
    assert page.text("#source").startswith("the tests' S3, read at ")


def test_tiles_tell_the_run_in_figures(page: Seen) -> None:
    error, still = expected.mean_errors(HORIZONS[-1], MINUTES)
    skill = model_metrics(0.4)["test"]["skill"]
    told = {
        "run": "serve",
        "bars": "3,020",
        "model": f"{skill:+.4f}",
        "stream": "running",
        "predictions": f"{MINUTES * len(PREDICTED) * len(HORIZONS)}",
        "error": f"{error:.2f} bp",
    }
    assert {name: page.text(f"#tile-{name} .value") for name in told} == told
    assert page.text("#tile-error .note") == f"“the price stays”: {still:.2f} bp"


def test_phases_and_shards_are_told(page: Seen) -> None:
    told = {name: page.text(f"#phase-{name}").splitlines() for name in ("ingest", "promote", "serve")}
    assert told["ingest"] == ["ingest", "done", "3,020 bars, 100% of tickers", "12.5 s"]
    assert told["promote"][:3] == ["promote", "done", "promoted"]
    assert told["serve"][:2] == ["serve", "running"]
    assert [cells[1:] for cells in page.rows("shards")] == [
        ["done", "2", "2 complete", "1,560"],
        ["done", "2", "1 complete, 1 partial", "1,460"],
    ]


def test_the_table_of_errors_holds_what_loops_over_single_predictions_give(page: Seen) -> None:
    assert page.rows("accuracy") == expected.accuracy_rows(MINUTES)


def test_a_ticker_and_a_horizon_can_be_chosen(page: Seen) -> None:
    for ticker in ("BBB", "AAA"):
        page.choose("ticker", ticker)
        expect(page.page.locator("#newest-place h3")).to_contain_text(f"{ticker} as of 2025-12-02 10:09")
        last, rows = price(ticker, MINUTES - 1), []
        for horizon in HORIZONS:
            move = predicted_return(ticker, MINUTES - 1, horizon)
            usd = last * math.exp(move)
            band = f"{usd - 0.1:,.2f} to {usd + 0.1:,.2f}"
            rows.append([f"{horizon} min", f"10:{9 + horizon:02d}", f"{usd:,.2f}", f"{1e4 * move:+.2f} bp", band])
        assert page.rows("newest") == rows
        assert f"{last:,.2f} USD" in page.text("#newest-place h3")
    page.choose("horizon", "1 min")
    expect(page.page.locator("#forecast .legendtext", has_text="predicted 1 min before")).to_be_visible()
    page.choose("horizon", "5 min")
    expect(page.page.locator("#forecast .legendtext", has_text="predicted 5 min before")).to_be_visible()


def test_charts_are_drawn(page: Seen) -> None:
    for chart, lines in (("loss", 2), ("forecast", 4), ("error", 2)):
        expect(page.page.locator(f"#{chart} .scatterlayer .trace")).to_have_count(lines)
    legend = page.page.locator("#forecast .legendtext").all_text_contents()
    assert sorted(legend) == ["10 to 90 %", "predicted 5 min before", "price"]
    expect(page.page.locator("#coverage .heatmaplayer image")).to_have_count(1)
    ticks = page.page.locator("#coverage .ytick text").all_text_contents()
    assert sorted(filter(None, ticks)) == ["AAA", "BBB", "CCC", "DDD"]


def test_the_market_is_a_tile_for_each_predicted_ticker(page: Seen) -> None:
    tiles = [tile.inner_text().splitlines() for tile in page.page.locator(".move").all()]
    assert tiles == [[ticker, f"{1e4 * predicted_return(ticker, MINUTES - 1, 5):+.1f}"] for ticker in PREDICTED]


def test_what_is_not_complete_is_told(page: Seen) -> None:
    assert page.rows("lacks") == [["DDD", "partial", "680", "12-02 partial"]]
    assert "4 tickers on 2 days: 3 complete, 1 partial. 3,020 bars" in page.text("#coverage-words")


def test_models_and_promotions_are_told(page: Seen) -> None:
    newer, older = (model_metrics(weight)["validation"]["skill"] for weight in (0.4, 0.2))
    rows = page.rows("models")
    assert [cells[0] for cells in rows] == [MODEL, OLDER]
    assert [cells[2].split() for cells in rows] == [["promoted", "serves"], ["promoted"]]
    assert rows[0][3:6] == [f"{newer:+.4f}", f"{older:+.4f}", f"{newer:+.4f}"]
    assert f"that of model {OLDER}, which serves, is no higher" in rows[0][6]
    page.page.locator("#card summary").click()
    expect(page.page.locator("#card h1")).to_have_text(f"Model {MODEL}")


def test_the_streams_health_is_told(page: Seen) -> None:
    health = {cells[0]: cells[1] for cells in page.rows("stream")}
    assert health["state"] == "running"
    assert (health["late"], health["duplicate"], health["minutes not predicted yet"]) == ("3", "1", "2")
    assert health["model"] == MODEL


def test_what_is_written_anew_shows_up_without_a_reload(browser: Browser, made: Callable[[str], Buckets]) -> None:
    buckets = made("growing")
    with served(lambda: source_of(buckets)) as url, opened(browser, url) as seen:
        expect(seen.page.locator("#welcome h2")).to_have_text("Nothing has run yet")
        assert seen.text("#what-to-run") == "stockflow start --follow"
        expect(seen.page.locator("#run-parts")).to_be_hidden()
        seen.page.evaluate("window.stayed = true")
        write_run(buckets)
        expect(seen.page.locator("#accuracy")).to_be_visible()
        expect(seen.page.locator("#welcome")).to_have_count(0)
        write_predictions(buckets, range(MINUTES, MINUTES + 10))
        newest = seen.page.locator("#newest-place h3", has_text="AAA as of 2025-12-02 10:19")
        expect(newest).to_be_visible()
        assert seen.rows("accuracy") == expected.accuracy_rows(MINUTES + 10)
        assert seen.page.evaluate("window.stayed")


def test_an_execution_is_followed_on_a_phone_without_scrolling_sideways(browser: Browser, planted: Buckets) -> None:
    states = FakeStates()
    states.add(RUN, STATES, status="RUNNING")
    with served(lambda: source_of(planted, states)) as url, opened(browser, url, width=390) as seen:
        expect(seen.page.locator("#tile-run .value")).to_have_text("RUNNING")
        assert [cells[:2] for cells in seen.rows("states")] == [
            ["IngestShards", "running"],
            ["PlanShards", "done"],
            ["ValidateInput", "done"],
        ]
        expect(seen.page.locator("#accuracy")).to_be_visible()
        expect(seen.page.locator("#coverage .heatmaplayer image")).to_have_count(1)
        assert seen.page.locator("section > h2").all_inner_texts() == SECTIONS
        assert seen.page.evaluate("document.documentElement.scrollWidth") == 390
        assert seen.page.evaluate(TOO_WIDE, 390) == []
        states.add(RUN, STATES, status="FAILED", error="YahooError")
        expect(seen.page.locator("#why")).to_have_text("IngestShards: YahooError: as AWS tells it")
        expect(seen.page.locator("#tile-run .value")).to_have_text("FAILED")


def test_an_s3_that_does_not_answer_is_one_sentence_and_is_tried_again(
    browser: Browser, planted: Buckets, made: Callable[[str], Buckets]
) -> None:
    two = replace(made("two"), models=planted.models, predictions=planted.predictions)
    write_health(two.market, datetime.now(UTC))
    two.market.put_json(contract.result_key("later", "dataset"), {"phase": "dataset", "wall_s": 2.0, "rows": 77})
    answers = [False]

    def find() -> Source:
        if not answers[0]:
            raise StorageError("S3 at http://127.0.0.1:9 does not answer: start it or check AWS_ENDPOINT_URL")
        return source_of(two)

    with served(find, RUN) as url, opened(browser, url) as seen:
        trouble = seen.page.locator("#trouble p")
        expect(trouble).to_have_text(
            "S3 at http://127.0.0.1:9 does not answer: start it or check AWS_ENDPOINT_URL. Trying again …"
        )
        answers[0] = True
        expect(seen.page.locator("#accuracy")).to_be_visible()
        expect(trouble).to_have_count(0)
        expect(seen.page.locator("#tile-run .note")).to_have_text(RUN)
        choose_a_run(seen)


def choose_a_run(seen: Seen) -> None:
    """Another run takes the place of all that the first one showed."""
    seen.choose("run", "later")
    expect(seen.page.locator("#tile-run .note")).to_have_text("later")
    expect(seen.page.locator("#phase-dataset")).to_contain_text("77 rows")
    expect(seen.page.locator("#forecast-words")).to_have_text("Predictions come with the serve phase.")
    expect(seen.page.locator("#forecast-frame")).to_be_hidden()


def test_the_command_serves_the_page_until_ctrl_c(browser: Browser, planted: Buckets, aws: str, tmp_path: Path) -> None:
    environ = {
        **clean_environ(os.environ),
        contract.ENV_AWS_ENDPOINT_URL: aws,
        contract.ENV_MARKET_BUCKET: planted.market.name,
        contract.ENV_MODEL_BUCKET: planted.models.name,
        contract.ENV_PREDICTIONS_BUCKET: planted.predictions.name,
    }
    with command(environ, "--port", "0", "--no-browser", "--dir", str(tmp_path)) as process:
        url = process.stdout.readline().split()[2].removesuffix(":")
        with opened(browser, url) as seen:
            expect(seen.page.locator("#accuracy")).to_be_visible()
            assert seen.rows("accuracy") == expected.accuracy_rows(MINUTES)
            assert seen.text("#source").startswith(f"{aws}, read at ")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read().split() == ["stockflow:", "interrupted"]


@contextmanager
def command(environ: dict[str, str], *arguments: str) -> Iterator[Any]:
    """`stockflow dashboard`, which is ended with the block."""
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "app.cli", "dashboard", *arguments],
                env=environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(process.kill)
        yield process


def test_no_other_name_leads_to_the_page(planted: Buckets) -> None:
    with served(lambda: source_of(planted)) as url:
        asked = http.client.HTTPConnection(url.removeprefix("http://"))
        asked.request("GET", "/", headers={"Host": "elsewhere.example"})
        assert asked.getresponse().status == 400
        asked.close()
