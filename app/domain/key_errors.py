"""What is said to whoever asks for what a key may not do, or may not become."""

from app.domain.errors import Conflict, DomainError, FieldRefused, NotFound


class KeyOutdated(Exception):
    """A remembered caller may be another by now. Nobody is told: the key is looked up again."""


class ScopeMissing(DomainError):
    code = "scope_missing"
    default_detail = "This key has no scope `generate`. Nothing was done. Use a key that has it."

    def __init__(self, scope: str = "generate") -> None:
        super().__init__(f"This key has no scope `{scope}`. Nothing was done. Use a key that has it.")


class KeyRestricted(DomainError):
    """A key never makes or changes one into a key that may do more than itself."""

    code = "key_restricted"
    default_detail = (
        "Only a key with every scope, no budget and no expiry may create, change, delete or rotate keys. "
        "Nothing was done."
    )


class OwnKey(DomainError):
    code = "own_key"
    default_detail = (
        "A key does not change itself. Nothing was done. Use another key of the account; "
        "DELETE /keys/current ends this one, and POST /auth replaces its secret."
    )


class KeyNotFound(NotFound):
    """Also for a key of another account, and for one that has ended."""

    code = "key_not_found"
    default_detail = "There is no live key with this id in your account. GET /keys lists those there are."


class KeyEnded(Conflict):
    code = "key_ended"
    default_detail = "The key that this Idempotency-Key made has ended. Send a new Idempotency-Key for a new key."


class TooManyKeys(Conflict):
    code = "too_many_keys"
    default_detail = (
        "Your account has 100 live keys, which is the most. Nothing was done. "
        "Delete one that is not used; GET /keys lists them."
    )


class ExpiresInThePast(FieldRefused):
    code = "not_in_the_future"
    default_detail = "This must be in the future. Without it, or with null, the key does not expire."

    def __init__(self) -> None:
        super().__init__("expires_at")
