"""The CDK app: `cdk synth`, `cdk deploy --all`; `python app.py` alone synthesises too."""

import sys

from app.errors import StockflowError
from infra.stacks import synthesise

if __name__ == "__main__":
    try:
        synthesise()
    except StockflowError as exc:
        sys.exit(f"stockflow: {exc}")
