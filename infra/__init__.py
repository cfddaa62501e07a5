"""The CDK app: one construct for each phase and for what they share, wired by stacks."""

import os
import sys
from pathlib import Path

# The CDK runs on Node.js, which its first import starts: the locked one, whatever the machine has.
if (_node := Path(sys.prefix, "bin", "node")).exists():
    os.environ.setdefault("JSII_NODE", str(_node))
