"""docs/simulator.md against the simulator: what there is stands in the manual, and what stands there is."""

import re
from collections.abc import Sequence
from pathlib import Path

from starlette.routing import BaseRoute, Mount, Route
from typer.main import get_command

from simulator import introspection
from simulator.__main__ import cli
from simulator.answers import INFRASTRUCTURE_ERRORS, MODEL_ERRORS
from simulator.behaviours import WORDS, behaviour_of
from simulator.config import SimulatorConfig
from simulator.faults import FAULTS
from simulator.models import ENDPOINTS

MANUAL = re.sub(
    r"^```.*?^```$",
    "",
    (Path(__file__).resolve().parents[2] / "docs" / "simulator.md").read_text(),
    flags=re.DOTALL | re.MULTILINE,
)


def section(title: str) -> str:
    """The text from a heading of the second level to the next one."""
    match = re.search(rf"^## {title}$.*?(?=^## |\Z)", MANUAL, re.DOTALL | re.MULTILINE)
    assert match is not None, f"docs/simulator.md has no section {title!r}"
    return match[0]


def first_cells(title: str) -> list[str]:
    return re.findall(r"^\| (`.*?) \|", section(title), re.MULTILINE)


def code_in(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_options_are_those_of_the_program_with_their_defaults() -> None:
    rows = re.findall(r"^\| (`--.*?) \| (.*?) ?\|", section("Options"), re.MULTILINE)
    listed = {
        name: default.strip("` ")
        for names, defaults in rows
        for name, default in zip(code_in(names), defaults.split(", "), strict=True)
    }
    shown_otherwise = {"--public-url": "Host header", "--unknown-key-id": "unknown", "--admin-key-id": "admin"}
    expected = {
        option.opts[0]: shown_otherwise.get(option.opts[0], _shown(option.default))
        for option in get_command(cli).params
        if option.opts[0] != "--help"
    }

    assert listed == expected


def test_the_error_types_are_all_of_them() -> None:
    text = section("Words in a prompt")
    listed = code_in(text[text.index("`[fail]` knows") :])[1:]

    assert sorted(listed) == sorted([*INFRASTRUCTURE_ERRORS, *MODEL_ERRORS])


def _shown(default: object) -> str:
    if default is None:
        return ""
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_every_word_of_the_table_is_one_and_none_is_missing() -> None:
    listed = [word for cell in first_cells("Words in a prompt") for word in code_in(cell)]

    assert [word for word in listed if behaviour_of(word).words != (word,)] == []
    # Faults of single calls have a table of their own.
    expected = {word.usage for word in WORDS if word.name not in ("submit", "status", "result", "cancel")}
    assert expected - {"[webhook:nan]"} <= set(listed)


def test_every_fault_of_the_table_is_one_and_none_is_missing() -> None:
    listed = [fault for cell in first_cells("Faults of single calls") for fault in code_in(cell)]
    words = [fault if fault.startswith("[") else f"[status:{fault}]" for fault in listed]

    assert [word for word in words if not behaviour_of(word).faults] == []
    assert {fault.name for fault in FAULTS} <= {fault.partition(":")[0] for fault in listed}


def test_every_word_in_the_text_is_one() -> None:
    mentioned = {word for word in code_in(MANUAL) if word.startswith("[")} - {
        "[OPERATION:FAULT]",
        "[media:FAULT]",
        "[slow]",
    }

    assert len(mentioned) > len(first_cells("Words in a prompt"))
    assert {word for word in mentioned if behaviour_of(word).words != (word,)} == set()


def test_the_routes_for_tests_are_those_of_the_program() -> None:
    listed = {
        (method, path.partition("?")[0])
        for methods, path in re.findall(r"^\| ((?:`(?:GET|POST)`?,? ?)+)(/\S+?)` \|", _with_one_mark(), re.MULTILINE)
        for method in re.findall("GET|POST", methods)
    }

    assert listed == set(_routes(introspection.routes))


def _with_one_mark() -> str:
    """`GET /path` as `GET` /path, as where two methods share a path."""
    return re.sub(r"`(GET|POST) /", r"`\1` /", section("For tests"))


def _routes(routes: Sequence[BaseRoute], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for route in routes:
        if isinstance(route, Mount):
            found += _routes(route.routes, prefix + route.path)
        elif isinstance(route, Route):
            found += [(method, prefix + route.path) for method in route.methods or () if method != "HEAD"]
    return found


def test_every_setting_is_named_or_an_option() -> None:
    options = {option.opts[0].removeprefix("--").replace("-", "_") for option in get_command(cli).params}
    listed = {name for name in code_in(section("For tests")) if re.fullmatch(r"[a-z_]+", name)}
    plural = {"unknown_key_ids": "unknown_key_id", "admin_key_ids": "admin_key_id"}

    missing = {name for name in SimulatorConfig.model_fields if plural.get(name, name) not in options} - listed

    assert missing == set()


def test_the_endpoints_are_those_of_the_program() -> None:
    match = re.search(r"`(\S+)/\{([a-z,-]+)\}`", MANUAL)
    assert match is not None

    assert {f"{match[1]}/{kind}" for kind in match[2].split(",")} == set(ENDPOINTS)
