"""The stream on a real Spark: every tick once, features and forecasts as in training, exact through a crash."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from app import contract
from app.dataset.forecast import MEAN, P10, P50, P90
from app.dataset.windows import window_set
from app.ingest.bars import read_bars
from app.ingest.plan import read_plan
from app.serving.scoring import Scorer, read_spec
from app.tables import get_table
from tests.models import plain_spec
from tests.pipeline.conftest import TICKERS, World
from tests.pipeline.streaming_job import predictions

HORIZONS = (2, 5)
QUANTILES = {"p10": P10, "p50": P50, "p90": P90}


def replayed_bars(world: World) -> pd.DataFrame:
    """The bars of the session that was replayed."""
    plan = read_plan(world.run_id, world.market)
    return read_bars(world.market, plan.sessions[-1:], plan.tickers).to_pandas()


def test_every_replayed_bar_has_one_prediction_for_each_horizon(served: World) -> None:
    found, bars = predictions(served), replayed_bars(served)
    assert set(bars["ticker"]) == set(TICKERS)
    for horizon in HORIZONS:
        pd.testing.assert_frame_equal(
            found[found["horizon_min"] == horizon][["ticker", "as_of", "last_price"]].reset_index(drop=True),
            bars[["ticker", "ts", "close"]].rename(columns={"ts": "as_of", "close": "last_price"}),
        )
    assert served.result("serve")["predictions"] == len(found) == len(HORIZONS) * len(bars)
    assert tuple(served.result("serve")["horizons_min"]) == HORIZONS


def test_prices_follow_from_the_last_one_and_quantiles_do_not_cross(served: World) -> None:
    found = predictions(served)
    np.testing.assert_allclose(found["predicted_price"], found["last_price"] * np.exp(found["predicted_return"]))
    assert (found["price_p10"] <= found["price_p50"]).all()
    assert (found["price_p50"] <= found["price_p90"]).all()
    assert (found["price_p10"] < found["price_p90"]).mean() > 0.99


def test_streamed_forecasts_are_those_of_the_batch_windows_of_the_same_bars(served: World) -> None:
    """The test split holds the replayed session: its windows of all features, cut by the dataset phase, scored here."""
    model_id = served.result("train")["model_id"]
    spec = read_spec(served.models, model_id)
    assert (spec.features, spec.horizons_min) == (contract.FEATURES, HORIZONS)
    assert len(spec.calibration) == len(HORIZONS)
    unscaled = plain_spec(spec.window_min, HORIZONS, spec.features)
    windows = window_set(get_table(served.models, contract.dataset_key(served.run_id, "test")), unscaled, 0.2)
    scorer = Scorer(model_id, served.models.get(contract.model_key(model_id, contract.MODEL_ONNX)), spec)
    names = [windows.tickers[i] for i in windows.ticker]
    returns = scorer.predict(names, windows.inputs(slice(None)))  # (windows, horizons, 4)
    prices = windows.last_price[:, None, None] * np.exp(returns)
    batch = pd.DataFrame(
        {
            "ticker": np.repeat(names, len(HORIZONS)),
            "as_of": np.repeat(pd.to_datetime(windows.as_of, unit="s", utc=True).as_unit("ms"), len(HORIZONS)),
            "horizon_min": np.tile(np.array(HORIZONS, np.int32), len(names)),
            "expected": returns[:, :, MEAN].ravel(),
            **{f"expected_{name}": prices[:, :, place].ravel() for name, place in QUANTILES.items()},
        }
    )
    both = predictions(served).merge(batch, on=["ticker", "as_of", "horizon_min"])
    assert len(both) > 2000
    assert (both["carried_minutes"] == 0).all()
    np.testing.assert_allclose(both["predicted_return"], both["expected"], atol=1e-8)
    for name in QUANTILES:
        np.testing.assert_allclose(both[f"price_{name}"], both[f"expected_{name}"], rtol=1e-8)


def test_only_the_first_hour_carries_minutes_of_the_session_before(served: World) -> None:
    found = predictions(served)
    first_bar = found["as_of"].min()
    minute = (found["as_of"] - first_bar) // pd.Timedelta(minutes=1)
    np.testing.assert_array_equal(found["carried_minutes"], np.maximum(59 - minute, 0))


def test_latest_json_holds_the_newest_predictions_of_each_ticker(served: World) -> None:
    latest = served.predictions.get_json(contract.LATEST_PREDICTIONS_KEY)
    newest = predictions(served).groupby("ticker").tail(len(HORIZONS))
    found = pd.DataFrame(latest["predictions"])
    assert latest["schema_version"] == 2
    for name in ("ticker", "horizon_min"):
        assert found[name].tolist() == newest[name].tolist()
    # Another run of these tests may have written them last: a forecast's last bit depends on how many windows are
    # scored together.
    for name in ("predicted_price", "price_p10"):
        np.testing.assert_allclose(found[name], newest[name], rtol=1e-8)
    assert len(newest) == len(HORIZONS) * len(TICKERS)


def test_the_live_feed_brings_the_same_session_and_so_the_same_predictions(served: World) -> None:
    """Begun and started again after the close: the whole session comes from Yahoo's charts, in one poll."""
    live = served.copy_run("live")
    plan = read_plan(live.run_id, live.market)
    live.market.put_json(contract.live_session_key(live.run_id), {"day": plan.sessions[-1].day})
    live.must("serve", "--live")
    fed = live.market.get_json(contract.feed_end_key(live.run_id))
    assert (fed["objects"], fed["ticks"]) == (1, len(replayed_bars(served)))
    columns = ["ticker", "as_of", "horizon_min", "last_price", "carried_minutes", "model_id"]
    found, expected = predictions(live), predictions(served)
    pd.testing.assert_frame_equal(found[columns], expected[columns])
    np.testing.assert_allclose(found["predicted_return"], expected["predicted_return"], atol=1e-8)


def test_a_run_is_not_served_twice(served: World) -> None:
    done = served.stockflow("serve")
    assert done.returncode == 8
    assert done.stderr.strip().splitlines()[-1] == "stockflow: run base has been served: start a new run id"


def test_a_checkpoint_of_another_bucket_s_run_of_the_same_name_is_not_taken(served: World) -> None:
    """The embedded S3 forgets, the temporary folder does not: each stream's checkpoint has a name of its own."""
    name = served.market.get_json(contract.stream_key(served.run_id))["stream_id"]
    assert name.startswith(f"{served.run_id}-")
    assert not (Path(tempfile.gettempdir()) / "stockflow-streams" / name).exists()  # served: no longer needed


def test_a_checkpoint_that_spark_cannot_reach_is_named(trained: World) -> None:
    done = trained.copy_run("elsewhere").stockflow("serve", "--checkpoint", "nosuch://host/streams")
    assert done.returncode == 8
    assert 'No FileSystem for scheme "nosuch": name a folder, or a URI' in done.stderr.splitlines()[-1]


def test_serving_without_a_model_says_what_to_run(dataset: World) -> None:
    copied = dataset.copy_run("modelless")
    elsewhere = copied.with_run("modelless", **{contract.ENV_MODEL_BUCKET: dataset.predictions.name})
    done = elsewhere.stockflow("serve")
    assert done.returncode == 8
    assert done.stderr.strip() == (
        f"stockflow: no model has been promoted: s3://{dataset.predictions.name}/models/current.json does not exist:"
        " run `stockflow promote`, lower gate.min_skill or train more"
    )


def test_a_missing_java_is_named_with_the_package_to_install(trained: World) -> None:
    bare = trained.copy_run("no-java").with_run("no-java", PATH="/nonexistent", JAVA_HOME="")
    done = bare.stockflow("serve")
    assert done.returncode == 9
    assert done.stderr.strip().splitlines()[-1] == (
        "stockflow: java is not installed or not on PATH: type `apt-get install openjdk-17-jre-headless`"
    )
