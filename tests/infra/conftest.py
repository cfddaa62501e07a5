"""One synthesis for all tests of the shared constructs, and one for each variation of the whole app."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from aws_cdk import App, Stack
from aws_cdk import aws_iam as iam

from app import contract
from infra import access, nag
from infra.network import Network
from infra.storage import Storage
from tests.infra.synthesised import VARIATIONS, Synthesised
from tests.infra.templates import Template, load

TICK_DAYS = 9
PREDICTIONS_DAYS = 120
PARTNER = "arn:aws:iam::111122223333:role/analyst"


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stacks Kept, Dropped, Network and Reader, synthesised and held against the AwsSolutions rules."""
    folder = tmp_path_factory.mktemp("cdk")
    app = App(outdir=str(folder))
    nag.check(app)
    kept = Storage(Stack(app, "Kept"), "Storage", retain=True, tick_days=TICK_DAYS, predictions_days=0)
    Storage(
        Stack(app, "Dropped"),
        "Storage",
        retain=False,
        tick_days=TICK_DAYS,
        predictions_days=PREDICTIONS_DAYS,
        consumer_principals=[PARTNER],
    )
    Network(Stack(app, "Network"), "Network")
    _grant_across_stacks(Stack(app, "Reader"), kept)
    app.synth()
    return folder


def _grant_across_stacks(stack: Stack, storage: Storage) -> None:
    for grant in (access.may_read, access.may_write, access.may_delete):
        role = iam.Role(stack, grant.__name__, assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com"))
        grant(role, storage.market, f"{contract.BARS_PREFIX}*", contract.plan_key("r1"))
    lister = iam.Role(stack, "may_list", assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com"))
    access.may_list(lister, storage.market)


@pytest.fixture(scope="session")
def kept(shared_folder: Path) -> Template:
    """Storage as it is by default."""
    return load(shared_folder, "Kept")


@pytest.fixture(scope="session")
def dropped(shared_folder: Path) -> Template:
    """Storage with retain=False, TICK_DAYS and PREDICTIONS_DAYS, and PARTNER as the only consumer."""
    return load(shared_folder, "Dropped")


@pytest.fixture(scope="session")
def network(shared_folder: Path) -> Template:
    return load(shared_folder, "Network")


@pytest.fixture(scope="session")
def reader(shared_folder: Path) -> Template:
    """One role for each grant of infra.access, in another stack than the bucket."""
    return load(shared_folder, "Reader")


@pytest.fixture(scope="session")
def variation(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Synthesised]:
    """The whole app in the variation of this name."""
    return cache(lambda name: Synthesised(VARIATIONS[name], tmp_path_factory.mktemp(name)))


@pytest.fixture
def default_app(variation: Callable[[str], Synthesised]) -> Synthesised:
    """The whole app as it is without any setting."""
    return variation("default")


@pytest.fixture
def managed_app(variation: Callable[[str], Synthesised]) -> Synthesised:
    """With a fleet that Batch manages, on Spot, and buckets that go with their stack."""
    return variation("managed")


@pytest.fixture
def always_on_app(variation: Callable[[str], Synthesised]) -> Synthesised:
    """With a cluster that stays, Spot training and schedules, under another name."""
    return variation("always_on")


@pytest.fixture(params=VARIATIONS)
def any_app(request: pytest.FixtureRequest, variation: Callable[[str], Synthesised]) -> Synthesised:
    """Each variation in turn: for what holds in all of them."""
    return variation(request.param)
