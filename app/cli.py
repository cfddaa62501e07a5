"""The command line: ``stockflow PHASE``. Nothing heavy is imported before a phase really runs."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from app import __version__, contract
from app.cli_dashboard import dashboard
from app.cli_local import LOCAL_COMMANDS
from app.cli_read import READ_COMMANDS
from app.cli_report import report
from app.cli_setup import SETUP_COMMANDS
from app.errors import StockflowError
from app.options import ExamplesLast, settings_options
from app.processes import OUR_MESSAGE

if TYPE_CHECKING:
    from app.clock import Clock
    from app.ingest.plan import Plan
    from app.progress import Report, Say
    from app.serving.tick_writer import TickWriter
    from app.sessions import Session
    from app.settings import Place, Settings

_EPILOG_PLACE = (
    "Buckets and run id come from the environment: STOCKFLOW_MARKET_BUCKET, STOCKFLOW_MODEL_BUCKET,"
    " STOCKFLOW_PREDICTIONS_BUCKET, STOCKFLOW_RUN_ID. AWS_ENDPOINT_URL points at an embedded AWS."
)

_EPILOG = """Exit codes: docs/troubleshooting.md.

\b
Examples:
  stockflow doctor
  stockflow run
  stockflow train --help
"""

_INTERRUPTED = 130

_run_id_option = click.option(
    "--run-id", envvar=contract.ENV_RUN_ID, help="Name of the run; phases of one run share it."
)


@click.group(
    cls=ExamplesLast,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(__version__, prog_name="stockflow")
def cli() -> None:
    """Parallel stock prediction: 1-minute bars in, a Horovod-trained LSTM, streamed forecasts out.

    The phases are linked by S3 alone and can be started one by one:

      ingest -> dataset -> train -> promote -> serve

    `stockflow run` deploys the AWS stack on this machine and lets its state machine walk all of them;
    `stockflow up` keeps it there, for start, status, logs and stop, until `stockflow down`.
    """


for _command in (*LOCAL_COMMANDS, *READ_COMMANDS, *SETUP_COMMANDS, dashboard, report):
    cli.add_command(_command)


class _Phase:
    """What every phase command gets: settings, place, clock and a progress report, from the edge."""

    def __init__(self, name: str, flags: tuple[str, ...], settings_file: Path | None, run_id: str | None) -> None:
        from app.clock import clock_from_text
        from app.progress import choose_mode, reporter, teller
        from app.settings import load, place_from_environ
        from app.settings_file import with_file

        environ = {**os.environ, **({contract.ENV_RUN_ID: run_id} if run_id else {})}
        self.environ = with_file(environ, flags, settings_file)
        self.name = name
        self.settings: Settings = load(self.environ, flags)
        self.place: Place = place_from_environ(self.environ)
        self.clock: Clock = clock_from_text(self.environ.get(contract.ENV_NOW))
        mode = choose_mode(self.environ.get(contract.ENV_PROGRESS))
        self.report: Report = reporter(name, mode)
        self.say: Say = teller(name, mode)
        self._started = time.perf_counter()

    def finish(self, result: dict[str, Any]) -> None:
        """Store the phase's result: its last act."""
        from app.storage import Bucket
        from app.workflow.results import write_result

        wall_s = time.perf_counter() - self._started
        result = write_result(Bucket(self.place.market_bucket), self.place.run_id, self.name, result, wall_s)
        click.echo(f"{self.name}: {result['rows']:,} rows in {result['wall_s']:.1f} s -> {result['where']}")


def _phase(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        @wraps(body)
        def command(flags: tuple[str, ...], settings_file: Path | None, run_id: str | None, **options: Any) -> None:
            body(_Phase(name, flags, settings_file, run_id), **options)

        return cli.command(name, epilog=_EPILOG_PLACE)(_run_id_option(settings_options(command)))

    return decorate


@click.option("--tickers", "universe", help="Tickers by commas, a file of them, dow30, sp100 or sp500.")
@click.option(
    "--only",
    type=click.Choice(["plan", "compact", "coverage"]),
    help="One step alone: write the plan, merge the shards' bars of each day, or join the shards' manifests.",
)
@click.option(
    "--shard",
    type=int,
    envvar=contract.ENV_ARRAY_INDEX,
    help="One step alone: fetch this shard of the plan. A child of a Batch array job takes the one of its index.",
)
@_phase("ingest")
def ingest(phase: _Phase, universe: str | None, only: str | None, shard: int | None) -> None:
    """Fetch 1-minute bars of the universe from Yahoo into S3.

    Deals the tickers to shards, asks for what S3 does not hold with many requests in flight, and stores
    bars as Parquet, one object a day, with a manifest that accounts for every ticker and day.

    \b
    Examples:
      stockflow ingest --tickers AAPL,MSFT,BRK-B --set ingest.days=14
      stockflow ingest --shard 0
    """
    from app.ingest.compact import compact_days
    from app.ingest.coverage import ingest_result, write_coverage
    from app.ingest.plan import read_plan, write_plan
    from app.ingest.run import is_last_attempt, run_one_shard, run_shards
    from app.ingest.universe import read_universe
    from app.sessions import recent_sessions
    from app.storage import Bucket

    if only and shard is not None:
        raise click.UsageError(f"--only {only} and --shard {shard} are two steps: name one")
    market = Bucket(phase.place.market_bucket)
    settings = phase.settings.ingest
    yahoo_url = phase.environ.get(contract.ENV_YAHOO_URL)
    sp500_url = phase.environ.get(contract.ENV_SP500_URL)
    if shard is not None:
        plan, last = read_plan(phase.place.run_id, market), is_last_attempt(phase.environ)
        run_one_shard(
            *(plan, shard, market, settings, yahoo_url, phase.clock, phase.report, phase.say), last_attempt=last
        )
        return
    if only in ("compact", "coverage"):
        plan = read_plan(phase.place.run_id, market)
    else:
        if universe is None:
            raise click.UsageError("name the universe: --tickers AAPL,MSFT, --tickers FILE or --tickers sp100")
        tickers, sessions = read_universe(universe, sp500_url), recent_sessions(phase.clock(), settings.days)
        plan = write_plan(
            *(phase.place.run_id, tickers, market, sessions),
            shards=settings.shards,
            request_days=settings.request_days,
            at_once=0 if only else settings.processes,  # a plan alone is for a fleet
        )
    if only == "plan":
        click.echo(f"{len(plan.shards)} shards -> s3://{market.name}/{contract.plan_key(plan.run_id)}")
        return
    if only is None:
        clock_text = phase.environ.get(contract.ENV_NOW)
        run_shards(plan, market.name, settings, yahoo_url, clock_text, phase.report, phase.say)
    if only != "coverage":
        gone = compact_days(market, plan.sessions, phase.report)
        click.echo(f"ingest: {gone} parts of days merged")
    if only == "compact":
        return
    coverage = write_coverage(plan, market, min_coverage=settings.min_coverage, on_delisted=settings.on_delisted)
    phase.finish(ingest_result(coverage, market))


@_phase("dataset")
def dataset(phase: _Phase) -> None:
    """Turn the run's bars into training data.

    Checks the bars, lays every session on its full grid of minutes, computes causal features, splits by
    time with a gap and fits the scaler on the training days alone.

    \b
    Example: stockflow dataset --set dataset.horizons_min=[1,2,5,10]
    """
    from app.dataset.run import run_dataset
    from app.storage import Bucket

    market, models = Bucket(phase.place.market_bucket), Bucket(phase.place.model_bucket)
    phase.finish(run_dataset(phase.place.run_id, market, models, phase.settings.dataset, phase.report))


@_phase("train")
def train(phase: _Phase) -> None:
    """Train the LSTM on the run's dataset, data-parallel with Horovod over MPI ranks.

    Averages gradients over the ranks at every step, leaves checkpoints by step from which a repetition
    goes on, measures each horizon against the forecast that the price stays, exports to ONNX and leaves
    the model as the run's candidate.

    \b
    Example: stockflow train --set training.ranks=2 --set training.epochs=8
    """
    from app.training.launch import run_training

    phase.finish(run_training(phase.place, phase.settings, phase.environ, phase.report))


@_phase("promote")
def promote(phase: _Phase) -> None:
    """Let the model that the run trained take over, if it is good enough.

    Moves models/current.json when the model's skill over the forecast that the price stays, on the
    validation days, is not below gate.min_skill, nor below that of the model that serves now. A model
    that is not promoted is no error.

    \b
    Example: stockflow promote --set gate.min_skill=0.01
    """
    from app.clock import system_clock
    from app.storage import Bucket
    from app.training.gate import decide
    from app.training.gate import promote as move_pointer

    models, run_id = Bucket(phase.place.model_bucket), phase.place.run_id
    decision = decide(models, run_id, phase.settings.gate.min_skill, system_clock())
    if decision.promote:
        move_pointer(models, run_id, decision.model_id, system_clock(), serving=decision.serving)
    click.echo(f"model {decision.model_id} is {'promoted' if decision.promote else 'not promoted'}: {decision.reason}")
    place = contract.CURRENT_MODEL_KEY if decision.promote else contract.model_prefix(decision.model_id)
    phase.finish({"rows": decision.windows, "where": f"s3://{models.name}/{place}", **decision.to_json()})


_speed_option = click.option(
    "--speed", type=float, help="Replay speed: 1 is real time (same as --set serving.speed=...)."
)
_live_option = click.option(
    "--live", is_flag=True, help="Today's session as it happens, or the next one (same as --set serving.feed=live)."
)


@_speed_option
@_live_option
@click.option(
    "--checkpoint",
    metavar="FOLDER",
    help="Folder, or URI such as hdfs:///streams, of the stream's offsets and state; goes on from it.",
)
@click.option(
    "--feed/--no-feed", "with_feed", default=True, help="Start the feed too, or leave it to `stockflow feed`."
)
@_phase("serve")
def serve(phase: _Phase, speed: float | None, live: bool, checkpoint: str | None, with_feed: bool) -> None:
    """Score the last session of the run as it is replayed, or the running one, with Spark Structured Streaming.

    Keeps the last 60 minutes of every ticker as state, starts warm from stored bars, and scores all
    tickers of a micro-batch together with the current model.

    \b
    Examples:
      stockflow serve --speed 60
      stockflow serve --live
    """
    from app.serving.run import run_serving

    settings = _with_feed(phase.settings, speed, live)
    run_serving(
        phase.place,
        settings,
        phase.environ,
        phase.report,
        phase.finish,
        checkpoint=checkpoint,
        with_feed=with_feed,
    )


@_speed_option
@_live_option
@_phase("feed")
def feed(phase: _Phase, speed: float | None, live: bool) -> None:
    """Bring a session's bars as ticks, minute by minute. `stockflow serve` starts it itself.

    Replays the last stored session, or, with --live, asks Yahoo each minute for the bars that have closed: it waits
    for the open of today's or the next session, and ends with it. Started again, it goes on where it was.

    \b
    Examples:
      stockflow feed --speed 600
      stockflow feed --live
    """
    from app.clock import system_clock
    from app.ingest.plan import read_plan
    from app.serving.feed import replay_session, served_session
    from app.serving.tick_writer import make_writer
    from app.storage import Bucket

    settings = _with_feed(phase.settings, speed, live)
    serving = settings.serving
    market = Bucket(phase.place.market_bucket, patient=True)
    plan = read_plan(phase.place.run_id, market)
    session = served_session(plan, serving.feed, system_clock(), market)
    writer = make_writer(serving, market, plan.run_id, session.day)
    if serving.feed == "replay":
        fed = replay_session(plan, session, market, writer, speed=serving.speed, report=phase.report)
    else:
        fed = _feed_today(phase, settings, plan, session, writer)
    click.echo(f"feed: {fed['ticks']:,} ticks in {fed['objects']} objects")


def _feed_today(phase: _Phase, settings: Settings, plan: Plan, session: Session, writer: TickWriter) -> dict[str, Any]:
    """Bring the running session, or the next one, from Yahoo or from a socket."""
    from app.clock import system_clock
    from app.ingest.price_stream import open_market
    from app.serving.feed import FEED_SAYS
    from app.serving.live_feed import feed_live
    from app.serving.socket_feed import feed_from_socket

    def say(line: str) -> None:
        click.echo(f"{FEED_SAYS}{line}", err=True)

    serving = settings.serving
    if serving.feed == "socket":
        return feed_from_socket(plan, session, writer, serving.socket_address, say=say, report=phase.report)
    connect = partial(
        open_market,
        *(plan.tickers, session, settings),
        yahoo_url=phase.environ.get(contract.ENV_YAHOO_URL),
        stream_url=phase.environ.get(contract.ENV_YAHOO_STREAM_URL),
        clock=system_clock,
        say=say,
    )
    return feed_live(plan, session, writer, serving, connect, say=say, report=phase.report)


@cli.command()
@click.option("--markdown", is_flag=True, help="Print the tables of docs/settings.md instead.")
def settings(markdown: bool) -> None:
    """List every setting with its default and what it means.

    \b
    Examples:
      stockflow settings
      stockflow settings --markdown
    """
    from app.settings import describe
    from app.settings_file import as_markdown

    for line in as_markdown().splitlines() if markdown else describe():
        click.echo(line)


@cli.command()
@click.option("-c", "context", multiple=True, metavar="KEY=VALUE", help="A setting of the deployment, as for the CDK.")
@click.option("--assume", multiple=True, metavar="NAME=VALUE", help="Change one assumption; the output lists them.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def cost(context: tuple[str, ...], assume: tuple[str, ...], as_json: bool) -> None:
    """Estimate what a run and an idle month cost on AWS. Runs in a checkout; asks AWS nothing.

    \b
    Examples:
      stockflow cost
      stockflow cost -c training.instances=4 --assume sequences_per_s=30000
      stockflow cost -c always_on=true --json
    """
    from infra.cost.report import show

    show(context, assume, as_json=as_json)


@cli.command()
@click.option("--nodes", default="1,2,3,4", show_default=True, help="Numbers of nodes.")
@click.option("--gpus", default="1,2", show_default=True, help="Ranks of a node: one for each GPU.")
@click.option("--batch", default="32,64,128,256", show_default=True, help="Windows in one step of one rank.")
@click.option("--target", type=click.Choice(["sagemaker", "local"]), default="sagemaker", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/scale"), show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), default=3, show_default=True, help="The first is not timed.")
@click.option("--dataset-run", default="", help="The run whose dataset is trained on; by default the last one built.")
@click.option("--deployment", default="stockflow", show_default=True, help="Name of the deployed stacks.")
@click.option("--machine", default="", envvar="STATE_MACHINE", help="ARN of the state machine; by default its stack's.")
@click.option("--instance", multiple=True, metavar="GPUS=TYPE", help="Instance type by GPUs, e.g. 2=ml.g5.12xlarge.")
@click.option("--at-once", type=click.IntRange(min=1), default=1, show_default=True, help="Training jobs side by side.")
@settings_options
def scale(
    nodes: str,
    gpus: str,
    batch: str,
    target: str,
    instance: tuple[str, ...],
    flags: tuple[str, ...],
    settings_file: Path | None,
    **asked: Any,
) -> None:
    """Train with several numbers of nodes, GPUs and batches; tables and pictures of how it scales.

    As SageMaker jobs, each an execution of the deployed state machine that only trains and promotes nothing,
    or as nodes x GPUs ranks on this machine.

    \b
    Examples:
      stockflow scale --nodes 1,2 --gpus 1 --batch 256 --at-once 2
      stockflow scale --target local --nodes 1,2 --gpus 1 --batch 256,1024
    """
    from app.scaling.run import run_scale
    from app.scaling.sweep import Sweep, read_cases, read_instances
    from app.settings import flags_of, load
    from app.settings_file import with_file

    cases = read_cases(nodes, gpus, batch)
    asked |= {
        "instances": read_instances(instance, cases),
        "flags": flags_of(load(with_file(os.environ, flags, settings_file), flags)),
    }
    run_scale(Sweep(f"scale-{datetime.now(UTC):%Y%m%d-%H%M%S}", cases, **asked), target, os.environ, click.echo)


def _with_feed(settings: Settings, speed: float | None, live: bool) -> Settings:
    from app.settings import changed

    flags = [] if speed is None else [f"serving.speed={speed}"]
    return changed(settings, *flags, *(["serving.feed=live"] if live else []))


def main() -> NoReturn:
    """Entry point: an error that a person can act on is one line on standard error and an exit status."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits it as ignored
    try:
        cli(standalone_mode=False)
    except StockflowError as exc:
        click.echo(f"{OUR_MESSAGE}{exc}", err=True)
        sys.exit(exc.exit_code)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo(f"{OUR_MESSAGE}interrupted", err=True)
        sys.exit(_INTERRUPTED)
    sys.exit(0)


if __name__ == "__main__":
    main()
