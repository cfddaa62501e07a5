"""Where the checkout lies: images, Lambdas and the EMR environment are made from its files."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
