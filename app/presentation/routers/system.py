from fastapi import APIRouter, Request, Response

from app.presentation.http.openapi import answer
from app.presentation.http.routing import DirectRoute
from app.presentation.http.state import UseCases, state_of
from app.presentation.schemas.system import Alive, CheckView, Readiness

router = APIRouter(tags=["System"], route_class=DirectRoute)

_READY = {"status": "ok", "checks": [{"name": "database", "ok": True, "detail": "PostgreSQL answers and is written"}]}
_NOT_READY = {
    "status": "unavailable",
    "checks": [{"name": "database", "ok": False, "detail": "PostgreSQL does not answer"}],
}


@router.get(
    "/healthz",
    operation_id="get_health",
    summary="Is the process alive?",
    response_description="It is",
    responses={200: answer({"status": "ok"})},
)
async def get_health() -> Alive:
    """Looks at nothing else: a restart would not mend what `/readyz` finds."""
    return Alive()


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Can the service do its work?",
    response_description="Every check passes",
    responses={
        200: answer(_READY),
        503: {**answer(_NOT_READY, "A check fails"), "model": Readiness},
    },
)
async def get_readiness(request: Request, response: Response, use_cases: UseCases) -> Readiness:
    """One entry per check, such as the database, its migrations, and the runner of the jobs."""
    if state_of(request.scope).is_stopping:
        response.status_code = 503
        return Readiness(status="unavailable", checks=[CheckView(name="process", ok=False, detail="stopping")])
    checks = [CheckView(name=check.name, ok=check.ok, detail=check.detail) for check in await use_cases.health.run()]
    if all(check.ok for check in checks):
        return Readiness(status="ok", checks=checks)
    response.status_code = 503
    return Readiness(status="unavailable", checks=checks)
