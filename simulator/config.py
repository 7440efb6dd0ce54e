from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from simulator.behaviours import behaviour_of

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
    admin_key_ids: frozenset[str] = frozenset({"admin"})
    """Key ids of scope ADMIN: what the request history and the billing want."""

    faults: str = ""
    """Words such as `[status:503]` that are in force for every call, whatever its prompt says."""

    foreign_url: Annotated[str, Field(pattern=r"^https?://\S+[^/\s]$")] = "https://elsewhere.example"
    """Where redirects and foreign URLs lead."""

    result_seconds_kept: Seconds = 3600
    large_result_seconds_kept: Seconds = 360
    """After the end of the run the result is gone, from 10 KB on earlier; the status is still there."""

    requests_kept: Annotated[int, Field(ge=1)] = 100_000
    """Beyond this number the oldest finished requests are forgotten."""

    files_kept: Annotated[int, Field(ge=1)] = 2_000
    """Bound of each kind of file: uploads, input pictures, rendered results."""

    file_bytes_kept: Annotated[int, Field(ge=1)] = 2 * 1024**3

    @field_validator("faults")
    @classmethod
    def _are_words(cls, text: str) -> str:
        words = behaviour_of(text).words
        if "".join(text.split()) != "".join(words).replace(" ", ""):
            raise ValueError("must be words in square brackets from /_sim/help, and nothing else")
        return text
