"""A service that a proxy publishes behind a path: `https://example.com/ai/balance` for `/balance`."""

from fastapi import FastAPI
from starlette.types import Scope


class RootPathTaken(ValueError):
    """The path is the beginning of a route. Whether the proxy has cut it off could then not be told."""


def check_root_path(api: FastAPI, root_path: str) -> None:
    """Raises RootPathTaken."""
    paths = [getattr(route, "path", "") for route in api.routes]
    taken = [path for path in paths if f"{path}/".startswith(f"{root_path}/")]
    if root_path and taken:
        raise RootPathTaken(f"must not be the beginning of a route of ours, as it is of {taken[0]}")


def complete_path(scope: Scope, root_path: str) -> None:
    """Some proxies cut the root path off and some do not. From here on it is always there, as ASGI wants it."""
    scope["root_path"], path = root_path, scope["path"]
    if path == root_path:
        # What people type: the page is at its end.
        scope["path"] = path = f"{root_path}/"
    if path != root_path and not path.startswith(f"{root_path}/"):
        scope["path"] = root_path + path
        if "raw_path" in scope:
            scope["raw_path"] = root_path.encode() + scope["raw_path"]
