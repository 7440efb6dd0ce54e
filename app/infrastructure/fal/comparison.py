"""Compares what was sent to fal with the inputs in its request history: pictures and sounds by their bytes."""

from collections.abc import Mapping
from typing import Any

from app.domain.given_media import Media, without_media
from app.infrastructure.fal import json_values, wire


def sent_form(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """May take long: pictures are decoded. The same for an input whose pictures were forgotten."""
    sent: Mapping[str, Any] = _of_bytes(json_values.parse(wire.arguments(without_media(parameters))), is_ours=True)
    return sent


def seen_form(value: object) -> object:
    """Of an input as fal shows it. May take long."""
    return _of_bytes(value, is_ours=False)


def has_all_of(sent: Mapping[str, Any], seen: object) -> bool:
    """Whether fal saw all that we sent; it may have added the defaults of what we left out."""
    return isinstance(seen, dict) and all(name in seen and _is_same(value, seen[name]) for name, value in sent.items())


def _of_bytes(value: Any, *, is_ours: bool, depth: int = 1) -> Any:
    """The value with `Media` in place of each data: URI; and, only where it is ours, in place of each mark of one."""
    if isinstance(value, str):
        return Media.of_uri(value) or value
    if not isinstance(value, dict | list) or depth > json_values.DEPTH_MAX:
        return value
    if isinstance(value, list):
        return [_of_bytes(item, is_ours=is_ours, depth=depth + 1) for item in value]
    media = Media.of_mark(value) if is_ours else None
    return media or {name: _of_bytes(field, is_ours=is_ours, depth=depth + 1) for name, field in value.items()}


def _is_same(sent: object, seen: object) -> bool:
    # Python finds True equal to 1.
    if isinstance(sent, bool) or isinstance(seen, bool):
        return sent is seen
    return bool(sent == seen)
