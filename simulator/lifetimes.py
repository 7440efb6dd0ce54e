"""How long a client wants files to be kept."""

import json

from starlette.datastructures import Headers

# fal's Python client sends both with an upload; of a request to the queue the first one counts.
HEADERS = ("x-fal-object-lifecycle-preference", "x-fal-object-lifecycle")


def lifetime_seconds(headers: Headers) -> float | None:
    """None: for ever, as for what makes no sense."""
    text = next((headers[name] for name in HEADERS if name in headers), "{}")
    try:
        preference = json.loads(text)
    except ValueError:
        return None
    seconds = preference.get("expiration_duration_seconds") if isinstance(preference, dict) else None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    return seconds if seconds >= 0 else None
