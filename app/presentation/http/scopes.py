"""What a key must be allowed to do for each route: the one table of it."""

from collections.abc import Mapping

from app.domain.accounts import Scope

SCOPES: Mapping[str, Scope | None] = {
    "start_text_to_image": Scope.GENERATE,
    "start_image_to_image": Scope.GENERATE,
    "start_text_to_video": Scope.GENERATE,
    "start_image_to_video": Scope.GENERATE,
    "cancel_generation": Scope.GENERATE,
    "delete_generation_media": Scope.GENERATE,
    "upload_file": Scope.GENERATE,
    "delete_file": Scope.GENERATE,
    "get_file": Scope.READ,
    "list_files": Scope.READ,
    "get_generation": Scope.READ,
    "list_generations": Scope.READ,
    "make_quote": Scope.READ,
    "get_balance": Scope.READ,
    "list_ledger_entries": Scope.READ,
    "list_events": Scope.READ,
    "stream_events": Scope.READ,
    "stream_generation": Scope.READ,
    "get_account": Scope.READ,
    "change_account": Scope.MANAGE,
    "list_keys": Scope.MANAGE,
    "get_key": Scope.MANAGE,
    # Beyond the scope, only a key that may do everything may do these.
    "create_key": Scope.MANAGE,
    "change_key": Scope.MANAGE,
    "delete_key": Scope.MANAGE,
    "rotate_key": Scope.MANAGE,
    "create_webhook_endpoint": Scope.MANAGE,
    "list_webhook_endpoints": Scope.MANAGE,
    "get_webhook_endpoint": Scope.MANAGE,
    "change_webhook_endpoint": Scope.MANAGE,
    "delete_webhook_endpoint": Scope.MANAGE,
    "rotate_webhook_endpoint_secret": Scope.MANAGE,
    "test_webhook_endpoint": Scope.MANAGE,
    "list_deliveries": Scope.MANAGE,
    "redeliver": Scope.MANAGE,
    "replay_events": Scope.MANAGE,
    "get_webhook_secret": Scope.MANAGE,
    "rotate_webhook_secret": Scope.MANAGE,
    "get_current_key": None,
    "delete_current_key": None,
}


def scope_of(operation_id: str | None) -> Scope | None:
    """None: any key will do. A route that the table does not name is left to keys that manage the account."""
    return SCOPES.get(operation_id or "", Scope.MANAGE)


def is_read(method: str, scope: Scope | None) -> bool:
    """A quote is asked for by POST, and changes nothing."""
    return method == "GET" or scope is Scope.READ
