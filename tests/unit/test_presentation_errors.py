from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from app.application.ports.health import Check
from app.domain import errors as domain_errors
from app.domain import events, file_errors, key_errors, limits, media_errors, webhooks
from app.domain.errors import DatabaseUnavailable, DomainError, PriceExceedsMaximum
from app.presentation.http.errors import RefusedRequest
from app.presentation.http.statuses import STATUS_BY_ERROR, status_of, title_of
from tests.unit.presentation_stand_ins import World, problem_of


def subclasses_of(error: type[Exception]) -> Iterator[type[Exception]]:
    for subclass in error.__subclasses__():
        yield subclass
        yield from subclasses_of(subclass)


def test_knows_a_status_for_every_domain_error() -> None:
    defined = {
        error
        for module in (domain_errors, events, file_errors, key_errors, limits, media_errors, webhooks)
        for error in vars(module).values()
        if isinstance(error, type)
    } - {DomainError}

    assert {error for error in defined if issubclass(error, DomainError)} == set(subclasses_of(DomainError))
    assert {status_of(error) for error in subclasses_of(DomainError)} == set(STATUS_BY_ERROR.values())  # type: ignore[arg-type]


def test_gives_every_error_a_code_of_its_own() -> None:
    errors = [*subclasses_of(DomainError), *subclasses_of(RefusedRequest)]
    codes = [vars(error)["code"] for error in errors]

    assert len(codes) == len(set(codes))


def test_names_a_status_as_rfc_9110_does() -> None:
    assert [title_of(status) for status in (404, 413, 422)] == [
        "Not Found",
        "Content Too Large",
        "Unprocessable Content",
    ]


async def test_writes_one_shape() -> None:
    response = await World().client().get("/balance", headers={"X-Request-Id": "r-1"})

    assert problem_of(response) == {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": "Send a valid API key in the X-API-Key header.",
        "code": "invalid_api_key",
        "request_id": "r-1",
    }


@pytest.mark.parametrize(
    "path", ["/studio", "/studio/", "/balance//", "/nothing", "/balance/", "/static-offline-docs/%00"]
)
async def test_answers_404_to_an_unknown_path(path: str) -> None:
    response = await World().client().get(path)

    assert response.status_code == 404
    assert problem_of(response)["code"] == "not_found"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY"])
async def test_answers_405_with_the_methods_that_work(method: str) -> None:
    response = await World().client().request(method, "/balance")

    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD"
    assert problem_of(response)["code"] == "method_not_allowed"


async def test_says_a_cost_for_a_program_too() -> None:
    world = World()
    _, key = await world.a_user()
    world.accounts.failure = PriceExceedsMaximum(30)

    response = await world.client().get("/balance", headers=key)

    assert response.status_code == 409
    problem = problem_of(response, "cost_tokens")
    assert (problem["code"], problem["cost_tokens"]) == ("price_exceeds_maximum", 30)


async def test_answers_503_when_the_database_is_away() -> None:
    world = World()
    _, key = await world.a_user()
    world.accounts.failure = DatabaseUnavailable()

    response = await world.client().get("/balance", headers=key)

    assert response.status_code == 503
    assert response.headers["retry-after"] == "2"
    assert problem_of(response)["code"] == "database_unavailable"


async def test_answers_500_without_a_word_about_the_cause_and_logs_it_once() -> None:
    world = World()
    _, key = await world.a_user()
    world.accounts.failure = RuntimeError("the password is 1234")

    with capture_logs() as logs:
        response = await world.client().get("/balance", headers=key)

    assert response.status_code == 500
    assert problem_of(response)["code"] == "internal_error"
    assert "1234" not in response.text
    assert [entry["event"] for entry in logs] == ["request_failed", "request_served"]
    assert logs[0]["exc_info"]


async def test_reports_the_checks_of_readiness() -> None:
    world = World()
    world.health.checks = [Check("database", True, "answers"), Check("runner", False, "stopped")]

    unavailable = await world.client().get("/readyz")
    world.health.checks = [Check("database", True, "answers")]
    ready = await world.client().get("/readyz")

    assert unavailable.status_code == 503
    assert unavailable.json() == {
        "status": "unavailable",
        "checks": [
            {"name": "database", "ok": True, "detail": "answers"},
            {"name": "runner", "ok": False, "detail": "stopped"},
        ],
    }
    assert (ready.status_code, ready.json()["status"]) == (200, "ok")


async def test_says_that_the_process_lives_without_the_use_cases() -> None:
    response = await World().client().get("/healthz")

    assert (response.status_code, response.json()) == (200, {"status": "ok"})
