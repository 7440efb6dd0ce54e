from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SimulatorConfig(BaseModel):
    """What can be set at the start, and again at run time with `POST /_sim/config`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    public_url: str | None = None
    """Base of every URL that the simulator hands out; without it, the Host header of the submit."""

    queue_seconds: Seconds = 0.5
    run_seconds_image: Seconds = 1.5
    run_seconds_video: Seconds = 4.0
    speed: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Divides every duration, also those that a prompt asks for."""

    user_id: Annotated[str, Field(pattern=r"^[!-~]+$")] = "simulator-user"
    """Whom webhooks name as the sender's user."""

    webhook_retry_seconds: Seconds = 1.0
    """Before the second attempt of a webhook; each further time it doubles."""

    webhook_attempts_max: Annotated[int, Field(ge=1)] = 10
    webhook_seconds_max: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 15.0
    """How long a receiver may take to answer one attempt."""

    webhooks_at_once: Annotated[int, Field(ge=1)] = 20

    unknown_key_ids: frozenset[str] = frozenset({"unknown"})
    locked_key_ids: frozenset[str] = frozenset({"locked"})

    requests_kept: Annotated[int, Field(ge=1)] = 100_000
    """Beyond this number the oldest finished requests are forgotten."""

    files_kept: Annotated[int, Field(ge=1)] = 2_000
    """Bound of each kind of file: uploads, input pictures, rendered results."""

    file_bytes_kept: Annotated[int, Field(ge=1)] = 2 * 1024**3
