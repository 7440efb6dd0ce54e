"""What a key must be allowed to do for each route: the one table of it."""

from collections.abc import Mapping

from app.domain.accounts import Scope

SCOPES: Mapping[str, Scope | None] = {
    "start_text_to_image": Scope.GENERATE,
    "start_image_to_image": Scope.GENERATE,
    "start_text_to_video": Scope.GENERATE,
    "start_image_to_video": Scope.GENERATE,
    "cancel_generation": Scope.GENERATE,
    "get_generation": Scope.READ,
    "list_generations": Scope.READ,
    "make_quote": Scope.READ,
    "get_balance": Scope.READ,
    "list_ledger_entries": Scope.READ,
}


def scope_of(operation_id: str | None) -> Scope | None:
    """None: any key will do. A route that the table does not name is left to keys that manage the account."""
    return SCOPES.get(operation_id or "", Scope.MANAGE)


def is_read(method: str, scope: Scope | None) -> bool:
    """A quote is asked for by POST, and changes nothing."""
    return method == "GET" or scope is Scope.READ
