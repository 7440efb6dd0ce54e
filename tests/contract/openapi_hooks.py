"""What the document cannot say about a request, put right before schemathesis sends it."""

import hashlib
import json
import random
import re
from base64 import b64encode
from typing import Any

import schemathesis

from app.domain.kinds import GenerationKind
from app.domain.parameters import Parameter
from app.infrastructure.catalogue.reading import read_catalogue
from tests.media_samples import film, four_corners, saved

CATALOGUE = read_catalogue()
CONSTRAINTS_MAX = 5
KEY_LENGTH_MAX = 255
MARK_LENGTH = 12
# As labels of a host.
ADDRESS = re.compile(
    r"(?<=[/.])[0-9]{1,3}(\.[0-9]{1,3}){3}(?=\.)|(?<=[/.])(ip-)?[0-9]{1,3}(-[0-9]{1,3}){3}(?=\.)", re.IGNORECASE
)
KEPT_MEDIA = re.compile(r"file:[0-9a-f-]{36}|output:[0-9a-f-]{36}/[0-9]+", re.IGNORECASE)
DATA_URI = re.compile(
    r"data:(image|audio)/(?:png|jpeg|webp|gif|avif|heic|heif|mpeg|mp3|wav|x-wav);base64,[A-Za-z0-9+/]+=*"
)
# By the first half of the media type.
MEDIA = {
    "image": ("image/png", saved(four_corners(512, 512), "PNG")),
    "audio": ("audio/mpeg", film("mp3", None, "libmp3lame", seconds=5)),
}


def whole_numbers(value: Any) -> Any:
    """JSON Schema takes 5.0 for an integer. The service does not: money is no float."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: whole_numbers(item) for name, item in value.items()}
    return [whole_numbers(item) for item in value] if isinstance(value, list) else value


def real_media(value: Any) -> Any:
    """No pattern says whether base64 is whole and what it holds, which files there are, or whether the name of a host
    holds an address.
    """
    if isinstance(value, dict):
        return {name: real_media(item) for name, item in value.items()}
    if isinstance(value, list):
        return [real_media(item) for item in value]
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        return ADDRESS.sub("host", value)
    if isinstance(value, str) and KEPT_MEDIA.fullmatch(value):
        return "https://example.com/fox.png"
    match = DATA_URI.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    content_type, content = MEDIA[match[1]]
    return f"data:{content_type};base64,{b64encode(content).decode()}"


def possible_sizes(value: Any) -> Any:
    """No schema says how large a product is: a picture that is too small for its model is made larger."""
    size = value.get("image_size") if isinstance(value, dict) else None
    if not isinstance(size, dict):
        return value
    sides: dict[str, Any] = {name: size.get(name) for name in ("width", "height")}
    if not all(isinstance(side, int) and 384 <= side <= 1440 for side in sides.values()):
        return value
    return {**value, "image_size": {**size, **{name: max(side, 768) for name, side in sides.items()}}}


def possible_combination(value: Any) -> Any:
    """No schema of a model says which values fal refuses together. Only what is right by itself is changed."""
    named = value.get("model") if isinstance(value, dict) else None
    model = CATALOGUE.get(named) if isinstance(named, str) else None
    for _ in range(CONSTRAINTS_MAX):
        constraint = None if model is None else model.violated(model.completed(value))
        if model is None or constraint is None:
            return value
        name, values = next(iter(constraint.when.items()))
        value = {**value, name: another_value(model.parameters[name], values)}
    return value


def possible_quote(value: Any) -> Any:
    """The schema of a quote leaves the fields to those of the generations. What it does not say itself is left out."""
    kinds = [kind for kind in GenerationKind if isinstance(value, dict) and value.get("type") == kind.value]
    named = value.get("model") if kinds else None
    if not kinds or (named is not None and not isinstance(named, str)):
        return value
    model = CATALOGUE.get(named or "")
    if model is None or model.kind is not kinds[0]:
        model = CATALOGUE.default_of(kinds[0])
    needed = {name: model.example[name] for name in model.quoted_names if model.parameters[name].is_required}
    return {"type": value["type"], **needed, **({} if named is None else {"model": model.id})}


def another_value(parameter: Parameter, values: frozenset[Any]) -> Any:
    allowed = parameter.choices or range(int(parameter.minimum or 0), int(parameter.maximum or 0) + 1)
    return next(value for value in allowed if value not in values)


def key_for(key: str, path: str, body: Any) -> str:
    """A key of its own for each request: the same key for another job or with another body is refused, as it should."""
    request = json.dumps([path, body], default=str, sort_keys=True).encode()
    return key[: KEY_LENGTH_MAX - MARK_LENGTH] + hashlib.sha256(request).hexdigest()[:MARK_LENGTH]


@schemathesis.hook
def before_call(_: Any, case: Any, __: Any) -> None:
    # From an address of its own: failed authentications of one would be slowed down.
    case.headers["X-Forwarded-For"] = ".".join(str(random.randrange(1, 255)) for _ in range(4))
    # Not what is no JSON at all: it is sent as it is.
    if isinstance(case.body, dict | list | float):
        body = possible_combination(possible_sizes(real_media(whole_numbers(case.body))))
        if case.path == "/quotes":
            body = possible_quote(body)
        if body != case.body or json.dumps(body) != json.dumps(case.body):
            case.body = body
    if case.path == "/keys/current" and case.method == "DELETE":
        # The key that all cases share stays: beside another one it is refused.
        case.headers["Authorization"] = "Bearer another"
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and 1 <= len(key) <= KEY_LENGTH_MAX and case.path.startswith("/generations"):
        case.headers["Idempotency-Key"] = key_for(key, case.formatted_path, case.body)
    if case.path.startswith("/webhook/") and {"X-Event-Id", "Idempotency-Key"} <= (case.headers or {}).keys():
        # Two names of one payment have to be the same.
        case.headers["Idempotency-Key"] = case.headers["X-Event-Id"]
