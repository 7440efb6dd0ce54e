"""Figures of the long runs, for the program that starts them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path


def report(name: str, figures: Mapping[str, object]) -> None:
    """Add them under the name to the file that TORTURE_REPORT names, where it names one."""
    path = os.environ.get("TORTURE_REPORT")
    if not path:
        return
    file = Path(path)
    known = json.loads(file.read_text()) if file.exists() and file.stat().st_size else {}
    file.write_text(json.dumps(known | {name: figures}, indent=2) + "\n")
