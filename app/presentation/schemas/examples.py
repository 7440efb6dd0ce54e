"""What several routes show in the document."""

from collections.abc import Mapping, Sequence
from typing import Any

JOB_ID = "019d2f6a-7c40-7d1e-8a55-3f0c9b2e4d61"
PRICE: Sequence[Mapping[str, Any]] = [
    {"line": "images", "unit": "image", "unit_tokens": 5, "factor": "1", "quantity": 1, "tokens": 5}
]
OUTPUT: Mapping[str, Any] = {
    "url": f"https://api.example.com/media/{JOB_ID}-0/image-1.png"
    "?expires=1798107341&signature=Zk9l3JmYbq0mM3sJ7o2Wc5yT1uVxR8nQpE4aHdGfKiA",
    "content_type": "image/png",
    "size_bytes": 1482113,
    "width": 1024,
    "height": 1024,
    "duration_seconds": None,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "is_stored": True,
    "is_blanked": False,
    "expires_at": "2026-12-23T10:15:41.654321Z",
    "deleted_at": None,
    "deleted_because": None,
}
COMPLETED_JOB: Mapping[str, Any] = {
    "job_id": JOB_ID,
    "type": "TEXT_TO_IMAGE",
    "model_id": "fal-ai/wan-25-preview/text-to-image",
    "status": "COMPLETED",
    "cost_tokens": 5,
    "price": PRICE,
    "fal_request_id": "764cabcf-b745-4b3e-ae38-1200304cf45b",
    "result": {"images": [{"url": "https://v3b.fal.media/files/b/0a1b2c3d/fox.png", "width": 1024, "height": 1024}]},
    "outputs": [OUTPUT],
    "error_code": None,
    "error_message": None,
    "status_reason": None,
    "waiting_for": None,
    "queue_position": None,
    "eta_seconds": None,
    "billing": {
        "charged_tokens": 5,
        "refunded_tokens": 0,
        "outcome": "charged",
        "reason": "Everything was delivered.",
        "lines": [{"line": "images", "charged_tokens": 5, "refunded_tokens": 0}],
    },
    "created_at": "2026-11-23T10:15:30.123456Z",
    "updated_at": "2026-11-23T10:15:41.654321Z",
}
EVENT: Mapping[str, Any] = {
    "id": "evt_1795515341654321",
    "seq": 1795515341654321,
    "type": "generation.completed",
    "created_at": "2026-11-23T10:15:41.654321Z",
    "data": COMPLETED_JOB,
}
REPLAYED: Mapping[str, Any] = {
    "Idempotent-Replayed": {
        "description": "`true` where the key came before: this is the first request's job, and nothing was debited.",
        "schema": {"type": "string"},
    },
}

WEBHOOK_SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" + "MfKQ9r8GKYo="
