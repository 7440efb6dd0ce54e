from typing import Literal

from pydantic import BaseModel


class Acknowledged(BaseModel):
    """The answer to a webhook: known, now or before."""

    ok: Literal[True] = True
