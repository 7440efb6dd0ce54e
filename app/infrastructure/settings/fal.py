"""The account at fal, the ways to fal and back, and how long fal may take."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, SecretStr

from app.infrastructure.fal.urls import QueueUrls, checked_base_url, checked_key
from app.infrastructure.settings.values import InProduction, Url, is_elsewhere, is_strong, is_strong_or_not_set

FAL_QUEUE_URL = "https://queue.fal.run"
FAL_WEBHOOKS_PATH = "/webhooks/fal"
FAL_REST_URL = "https://rest.fal.ai"
FAL_API_URL = "https://api.fal.ai/v1"

_NOT_SIMULATED = InProduction(is_elsewhere, "must not be the simulator")


def _is_key(key: SecretStr) -> SecretStr:
    return SecretStr(checked_key(key.get_secret_value()))


def _is_queue(url: str) -> str:
    QueueUrls(url)
    return url


class SafetyChecker(StrEnum):
    """Who decides whether fal's safety checker filters the results."""

    USER = "user"
    ON = "on"


FalKey = Annotated[SecretStr, AfterValidator(_is_key)]
TimeLimitSeconds = Annotated[int, Field(ge=1, le=86_400)]


class FalSettings(BaseModel):
    fal_key: Annotated[FalKey | None, InProduction(is_strong, "must be set to the key of your fal.ai account")] = None
    fal_queue_url: Annotated[Url, AfterValidator(_is_queue), _NOT_SIMULATED] = FAL_QUEUE_URL
    fal_rest_url: Url = FAL_REST_URL
    fal_jwks_url: Url | None = None
    fal_user_id: str | None = None
    fal_admin_key: Annotated[
        FalKey | None,
        InProduction(is_strong_or_not_set, "must be an ADMIN key of your fal.ai account, or not set"),
    ] = None
    fal_api_url: Annotated[Url, AfterValidator(checked_base_url), _NOT_SIMULATED] = FAL_API_URL
    public_url: Url | None = None
    safety_checker: SafetyChecker = SafetyChecker.USER

    image_time_limit_seconds: TimeLimitSeconds = 20 * 60
    video_time_limit_seconds: TimeLimitSeconds = 60 * 60

    @property
    def is_safety_checker_required(self) -> bool:
        return self.safety_checker is SafetyChecker.ON

    @property
    def webhooks_url(self) -> str | None:
        """Where fal's webhooks go, without the attempt's token at the end."""
        return None if self.public_url is None else f"{self.public_url}{FAL_WEBHOOKS_PATH}"

    @property
    def jwks_url(self) -> str:
        return self.fal_jwks_url or f"{self.fal_rest_url}/.well-known/jwks.json"
