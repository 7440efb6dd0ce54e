"""Which status answers each error of the domain, and what a status is called."""

from collections.abc import Mapping
from http import HTTPStatus

from app.domain.errors import (
    Conflict,
    DomainError,
    FieldRefused,
    IdempotencyKeyReused,
    InsufficientBalance,
    JobFinished,
    NotFound,
    PaymentEventIdRequired,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from app.domain.events import EventsForgotten
from app.domain.file_errors import FileNotTaken
from app.domain.key_errors import KeyRestricted, OwnKey, ScopeMissing
from app.domain.limits import BudgetExceeded
from app.domain.media_errors import LinkExpired, LinkNotValid, MediaDeleted

STATUS_BY_ERROR: Mapping[type[DomainError], int] = {
    Unauthenticated: 401,
    InsufficientBalance: 402,
    BudgetExceeded: 402,
    ScopeMissing: 403,
    KeyRestricted: 403,
    OwnKey: 403,
    NotFound: 404,
    EventsForgotten: 410,
    LinkNotValid: 403,
    LinkExpired: 410,
    MediaDeleted: 410,
    FileNotTaken: 422,
    JobFinished: 400,
    Conflict: 409,
    PaymentEventIdRequired: 400,
    IdempotencyKeyReused: 422,
    FieldRefused: 422,
    TooManyRequests: 429,
    Unavailable: 503,
}

# RFC 9110 renamed these two; Python keeps the old names up to 3.12.
_TITLES: Mapping[int, str] = {413: "Content Too Large", 422: "Unprocessable Content"}


def title_of(status: int) -> str:
    if status in _TITLES:
        return _TITLES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def status_of(error: type[DomainError]) -> int:
    return next(STATUS_BY_ERROR[known] for known in error.__mro__ if known in STATUS_BY_ERROR)
