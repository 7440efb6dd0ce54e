"""What several routes show in the document."""

from collections.abc import Mapping, Sequence
from typing import Any

JOB_ID = "019d2f6a-7c40-7d1e-8a55-3f0c9b2e4d61"
PRICE: Sequence[Mapping[str, Any]] = [
    {"line": "images", "unit": "image", "unit_tokens": 5, "factor": "1", "quantity": 1, "tokens": 5}
]
REPLAYED: Mapping[str, Any] = {
    "Idempotent-Replayed": {
        "description": "`true` where the key came before: this is the first request's job, and nothing was debited.",
        "schema": {"type": "string"},
    },
}
