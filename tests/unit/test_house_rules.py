"""The rules that keep the code the same to read at three times its size, counted."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.application import ports
from app.application.keys import IssueFirstKey, RevokeKeys, RotateKey
from app.application.payments import TopUp
from app.application.use_cases import CustomerUseCases, OperatorUseCases
from app.bootstrap import build
from app.infrastructure.settings import load_settings
from tests.builders import BUILT_IN

FILE_LINES_MAX = 300
FUNCTION_LINES_MAX = 50
PORT_METHODS_MAX = 8
PACKAGES = ("app", "devtools")
PROJECT_DIR = Path(__file__).resolve().parents[2]
FILES = [path for package in PACKAGES for path in sorted((PROJECT_DIR / package).rglob("*.py"))]
PORTS = [
    port
    for module in pkgutil.iter_modules(ports.__path__, f"{ports.__name__}.")
    for _, port in inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
    if port.__module__ == module.name and getattr(port, "_is_protocol", False)
]
# The wire's own word, and what the web layer says on the wire.
ON_THE_WIRE = {"GenerationKind", "GENERATIONS", "GenerationRequest"}


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text()))


def test_no_file_is_longer_than_300_lines() -> None:
    lengths = {str(path.relative_to(PROJECT_DIR)): len(path.read_text().splitlines()) for path in FILES}

    assert {path: length for path, length in lengths.items() if length > FILE_LINES_MAX} == {}


def test_no_function_is_longer_than_50_lines() -> None:
    functions = {
        f"{path.relative_to(PROJECT_DIR)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in FILES
        for node in nodes(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert len(functions) > 500
    assert {name: length for name, length in functions.items() if length > FUNCTION_LINES_MAX} == {}


@pytest.mark.parametrize("port", PORTS, ids=lambda port: port.__name__)
def test_a_port_has_at_most_eight_methods(port: type) -> None:
    methods = [name for name, _ in inspect.getmembers(port, inspect.isfunction) if not name.startswith("_")]

    assert 1 <= len(methods) <= PORT_METHODS_MAX


def test_the_code_says_job_where_it_means_the_row() -> None:
    names = {
        (str(path.relative_to(PROJECT_DIR)), node.name)
        for path in FILES
        for node in nodes(path)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if "generation" in node.name.lower() and node.name not in ON_THE_WIRE
        if path.is_relative_to(PROJECT_DIR / "app") and not path.is_relative_to(PROJECT_DIR / "app" / "presentation")
    }

    assert names == set()


def reachable(thing: Any, seen: list[Any]) -> list[Any]:
    """What a router can name from there: public attributes, as far as they are of the application."""
    if not type(thing).__module__.startswith("app.") or any(thing is one for one in seen):
        return seen
    seen.append(thing)
    names = {*getattr(thing, "__dict__", {}), *getattr(type(thing), "__slots__", ())}
    for name in names:
        if not name.startswith("_"):
            reachable(getattr(thing, name), seen)
    return seen


async def test_what_needs_no_proof_cannot_be_named_from_the_customers_use_cases() -> None:
    settings = load_settings(_env_file=None, database_url="postgresql://nobody@127.0.0.1/none", fal_key="test:key")
    async with build(settings) as runtime:
        things = reachable(runtime.customers(BUILT_IN), [])

    kinds = {type(thing) for thing in things}
    assert CustomerUseCases in kinds
    assert kinds.isdisjoint({OperatorUseCases, IssueFirstKey, RotateKey, RevokeKeys, TopUp})
    named = {name for thing in things for name in dir(thing)}
    assert "start" in named
    assert named.isdisjoint({"add_first_key", "replace_key", "revoke_key", "credit", "settle", "claim", "newest"})
