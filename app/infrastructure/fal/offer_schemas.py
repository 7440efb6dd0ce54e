"""Reads what an endpoint takes from the OpenAPI document that fal has of it. Whatever is of a wrong form is skipped."""

from collections.abc import Iterator, Mapping
from typing import Any

from app.domain.offers import OfferedParameter

FIELDS_MAX = 200
VALUES_MAX = 500
NAME_LENGTH_MAX = 200
# References, and alternatives within alternatives.
DEPTH_MAX = 8
VARIANTS_MAX = 50
_JSON = "application/json"
_REFERENCE = "#/components/schemas/"
_TYPES = frozenset({"string", "integer", "number", "boolean", "array", "object"})
_WRITING = ("post", "put")


def parameters_in(document: object, model_id: str) -> Mapping[str, OfferedParameter] | None:
    """None if there is no input in it."""
    schemas = _inside(document, "components", "schemas")
    schema = next(iter(_variants(_input_schema(document, model_id), schemas)), {})
    properties = _inside(schema, "properties")
    if not properties:
        return None
    listed = schema.get("required")
    required = {name for name in listed if isinstance(name, str)} if isinstance(listed, list) else set()
    return {
        name: _parameter(property_, schemas, is_required=name in required)
        for name, property_ in list(properties.items())[:FIELDS_MAX]
        if isinstance(property_, dict) and 0 < len(name) <= NAME_LENGTH_MAX
    }


def _input_schema(document: object, model_id: str) -> object:
    paths = _inside(document, "paths")
    named = paths.get(f"/{model_id}")
    for path in ([named] if isinstance(named, dict) else []) + list(paths.values()):
        for method in _WRITING:
            schema = _inside(path, method, "requestBody", "content", _JSON, "schema")
            if schema:
                return schema
    return None


def _parameter(schema: Mapping[str, Any], schemas: Mapping[str, Any], *, is_required: bool) -> OfferedParameter:
    variants = list(_variants(schema, schemas))
    scalars = [each for each in variants if each.get("type") not in ("object", "array")]
    enumerated = [values for each in scalars if (values := _enumeration(each)) is not None]
    # A text beside an enumeration lets everything in.
    is_enumerated = bool(enumerated) and len(enumerated) == len(scalars)
    return OfferedParameter(
        types=frozenset(kind for each in variants if (kind := _type(each)) is not None),
        values=[value for values in enumerated for value in values] if is_enumerated else None,
        minimum=_number(variants, "minimum"),
        maximum=_number(variants, "maximum"),
        length_min=_count(variants, "minLength"),
        length_max=_count(variants, "maxLength"),
        count_min=_count(variants, "minItems"),
        count_max=_count(variants, "maxItems"),
        default=schema.get("default"),
        is_required=is_required,
    )


def _variants(schema: object, schemas: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The schema itself, or the alternatives in it, with references followed and null left out."""
    waiting: list[tuple[object, int]] = [(schema, 0)]
    seen = 0
    while waiting and seen < VARIANTS_MAX:
        each, depth = waiting.pop(0)
        seen += 1
        if not isinstance(each, dict) or depth > DEPTH_MAX or each.get("type") == "null":
            continue
        reference = each.get("$ref")
        if isinstance(reference, str):
            waiting.append((schemas.get(reference.removeprefix(_REFERENCE)), depth + 1))
            continue
        inner = [part for key in ("anyOf", "oneOf", "allOf") if isinstance(each.get(key), list) for part in each[key]]
        if inner:
            waiting += [(part, depth + 1) for part in inner[:VARIANTS_MAX]]
        else:
            yield each


def _type(schema: Mapping[str, Any]) -> str | None:
    kind = schema.get("type")
    return kind if isinstance(kind, str) and kind in _TYPES else None


def _enumeration(schema: Mapping[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]] if isinstance(schema["const"], str | int | float) else None
    values = schema.get("enum")
    if not isinstance(values, list):
        return None
    return [value for value in values[:VALUES_MAX] if isinstance(value, str | int | float)]


def _number(variants: list[Mapping[str, Any]], key: str) -> int | float | None:
    for each in variants:
        value = each.get(key)
        if type(value) in (int, float):
            return value
    return None


def _count(variants: list[Mapping[str, Any]], key: str) -> int | None:
    value = _number(variants, key)
    return value if isinstance(value, int) else None


def _inside(value: object, *path: str) -> dict[str, Any]:
    """The object there, or an empty one."""
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
