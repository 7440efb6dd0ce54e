"""The table of what a key must be allowed to do names each route that asks for a key, and no other."""

from fastapi.routing import APIRoute

from app.domain.accounts import Scope
from app.presentation.http.api import create_api
from app.presentation.http.keyed_routes import KeyedRoute
from app.presentation.http.scopes import SCOPES, scope_of
from tests.builders import BUILT_IN

ROUTES = [route for route in create_api(BUILT_IN, version="1").routes if isinstance(route, APIRoute)]


def test_every_route_that_asks_for_a_key_is_in_the_table() -> None:
    assert {route.operation_id for route in ROUTES if isinstance(route, KeyedRoute)} == set(SCOPES)


def test_reading_needs_read_or_manage_and_nothing_that_changes_is_left_to_a_key_that_reads() -> None:
    scopes = {
        name: {
            scope_of(route.operation_id)
            for route in ROUTES
            if name in (route.methods or ()) and route.operation_id in SCOPES
        }
        for name in ("GET", "POST", "PATCH", "DELETE")
    }

    assert scopes["GET"] <= {Scope.READ, Scope.MANAGE, None}
    # A quote is asked for by POST, and changes nothing.
    assert {
        route.operation_id
        for route in ROUTES
        if "POST" in (route.methods or ()) and scope_of(route.operation_id) is Scope.READ
    } == {"make_quote"}
    assert scopes["PATCH"] == {Scope.MANAGE}
    # Whoever makes files may delete them.
    assert scopes["DELETE"] <= {Scope.GENERATE, Scope.MANAGE, None}


def test_any_key_may_look_at_itself_and_end_itself_and_no_more() -> None:
    assert {name for name, scope in SCOPES.items() if scope is None} == {"get_current_key", "delete_current_key"}


def test_a_route_that_the_table_does_not_name_is_left_to_keys_that_manage_the_account() -> None:
    assert scope_of("something_new") is scope_of(None) is Scope.MANAGE
