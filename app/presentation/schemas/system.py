from typing import Literal

from pydantic import BaseModel


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class CheckView(BaseModel):
    name: str
    ok: bool
    detail: str


class Readiness(BaseModel):
    status: Literal["ok", "unavailable"]
    checks: list[CheckView]
