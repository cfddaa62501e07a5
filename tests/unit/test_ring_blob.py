"""A bucket's state as it is stored: what comes back, and what is not taken."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from app import contract
from app.dataset.spec import Spec
from app.errors import ServingError
from app.serving.ring_blob import pack, unpack
from app.serving.rings import Rings
from app.serving.ticks import Ticks, columns_of, ticks_from_table
from tests.fakes import make_bars, make_sessions, market_bars
from tests.models import plain_spec

WINDOW, WATERMARK = 5, 3
SESSIONS = make_sessions(20, 14, 20)
PROFILE = np.random.default_rng(5).normal(0, 1, contract.SESSION_MINUTES).tolist()
SPEC = plain_spec(WINDOW, features=contract.FEATURES, volume_profile=PROFILE)


def polled(bars: pa.Table) -> Ticks:
    return ticks_from_table(columns_of(bars))


def fed() -> Rings:
    rings = Rings.empty(("A", "B", "NEVER"), SPEC, WATERMARK)
    rings.apply(polled(market_bars(["A", "B"], SESSIONS[:2], gaps={"B": 3})), SESSIONS)
    return rings


def assert_same(found: Rings, expected: Rings) -> None:
    assert found.tickers == expected.tickers
    for name, array in vars(expected).items():
        if isinstance(array, np.ndarray):
            assert np.array_equal(getattr(found, name), array, equal_nan=array.dtype.kind == "f"), name


def test_a_blob_comes_back_as_it_went_and_can_be_written_to() -> None:
    rings = fed()
    back = unpack(pack(rings), SPEC)
    assert_same(back, rings)
    assert back.watermark == WATERMARK
    assert pack(back) == pack(rings)
    later = polled(make_bars("A", SESSIONS[2]))
    assert np.array_equal(back.apply(later, SESSIONS)[0].rows, rings.apply(later, SESSIONS)[0].rows)


def test_an_empty_blob_comes_back_empty() -> None:
    back = unpack(pack(Rings.empty((), SPEC, WATERMARK)), SPEC)
    assert (back.tickers, back.rows.shape) == ((), (0, WINDOW + WATERMARK, 7))


def test_a_blob_is_hardly_larger_than_its_rows() -> None:
    rings = Rings.empty([f"T{i:04d}" for i in range(1000)], plain_spec(60, features=contract.FEATURES), 5)
    assert len(pack(rings)) < 1.25 * rings.rows.nbytes


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (plain_spec(6, features=contract.FEATURES, volume_profile=PROFILE), "written for a window of 5 minutes of"),
        (
            plain_spec(WINDOW, volume_profile=PROFILE),
            "of log_return,log_volume,session_return,log_range,relative_volume,market_return,session_minute,"
            " the model takes 5 of log_return,log_volume: start the stream with a new run id",
        ),
        (
            plain_spec(WINDOW, features=contract.FEATURES[::-1], volume_profile=PROFILE),
            "the model takes 5 of session_minute,market_return,",
        ),
        (plain_spec(WINDOW, features=contract.FEATURES), "a model that was trained on other days, whose usual volume"),
    ],
    ids=["window", "features", "their order", "usual volume"],
)
def test_a_blob_of_rows_that_the_model_does_not_take_is_refused(wanted: Spec, message: str) -> None:
    with pytest.raises(ServingError) as caught:
        unpack(pack(fed()), wanted)
    assert message in str(caught.value)


def test_a_model_of_other_days_takes_the_blob_where_no_feature_depends_on_them() -> None:
    first, second = (plain_spec(WINDOW, volume_profile=profile) for profile in (PROFILE, PROFILE[::-1]))
    assert unpack(pack(Rings.empty(("A",), first, WATERMARK)), second).tickers == ("A",)


def test_a_blob_of_another_version_is_refused() -> None:
    table = pa.ipc.open_stream(pack(fed())).read_all()
    old = table.replace_schema_metadata({**table.schema.metadata, b"version": b"1"})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, old.schema) as writer:
        writer.write_table(old)
    with pytest.raises(ServingError, match="of another version of this code: start the stream with a new run id"):
        unpack(bytes(sink.getvalue()), SPEC)


def test_selected_rings_are_those_of_the_tickers_and_unknown_ones_start_empty() -> None:
    rings = fed()
    chosen = rings.select(["NEW", "B"])
    assert_same(chosen.select(["B"]), rings.select(["B"]))
    assert chosen.held.tolist() == [0, rings.held[1]]
    assert chosen.last_ts.tolist()[0] < 0
    chosen.rows[:] = 777
    assert not (rings.rows == 777).any()


def test_joined_rings_hold_the_one_and_then_the_other() -> None:
    rings = fed()
    joined = rings.select(["A"]).joined(rings.select(["B", "NEVER"]))
    assert_same(joined, rings)
