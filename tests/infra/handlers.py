"""The Lambdas' handlers in this process. They are modules of their own, as in the deployed folder, not of a package."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parents[2] / "lambdas"

Handler = Callable[[Any, None], dict[str, Any]]


def load_handler(name: str, folder: Path = _FOLDER) -> Handler:
    """The function `handler` of a file in lambdas/, or in a staged asset; `app` is the repository's."""
    spec = importlib.util.spec_from_file_location(f"lambda_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler: Handler = module.handler
    return handler
