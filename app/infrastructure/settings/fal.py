"""The account at fal, the ways to fal and back, and how long fal may take."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, SecretStr

from app.infrastructure.fal.urls import QueueUrls, checked_base_url, checked_key
from app.infrastructure.settings.values import (
    HeaderText,
    InProduction,
    Url,
    is_elsewhere,
    is_encrypted_on_its_way,
    is_public,
    is_strong,
    is_strong_or_not_set,
)

FAL_QUEUE_URL = "https://queue.fal.run"
FAL_WEBHOOKS_PATH = "/webhooks/fal"
FAL_REST_URL = "https://rest.fal.ai"
FAL_API_URL = "https://api.fal.ai/v1"

_NOT_SIMULATED = InProduction(is_elsewhere, "must not be the simulator")
_ENCRYPTED = InProduction(is_encrypted_on_its_way, "must begin with https://: it is what the account at fal hangs on")
_PUBLIC = InProduction(
    is_public,
    "must be the URL under which the internet reaches this service, not a name of this machine or of a private network",
)


def _is_key(key: SecretStr) -> SecretStr:
    return SecretStr(checked_key(key.get_secret_value()))


def _is_queue(url: str) -> str:
    QueueUrls(url)
    return url.rstrip("/")


FalKey = Annotated[SecretStr, AfterValidator(_is_key)]
TimeLimitSeconds = Annotated[int, Field(ge=1, le=86_400)]


class FalSettings(BaseModel):
    fal_key: Annotated[FalKey | None, InProduction(is_strong, "must be set to the key of your fal.ai account")] = None
    fal_queue_url: Annotated[str, AfterValidator(_is_queue), _NOT_SIMULATED, _ENCRYPTED] = FAL_QUEUE_URL
    fal_rest_url: Annotated[Url, _NOT_SIMULATED, _ENCRYPTED] = FAL_REST_URL
    fal_jwks_url: Annotated[Url | None, _NOT_SIMULATED, _ENCRYPTED] = None
    fal_user_id: HeaderText | None = None
    fal_admin_key: Annotated[
        FalKey | None,
        InProduction(is_strong_or_not_set, "must be an ADMIN key of your fal.ai account, or not set"),
    ] = None
    fal_api_url: Annotated[str, AfterValidator(checked_base_url), _NOT_SIMULATED, _ENCRYPTED] = FAL_API_URL
    public_url: Annotated[Url | None, _PUBLIC, _ENCRYPTED] = None

    image_time_limit_seconds: TimeLimitSeconds = 20 * 60
    video_time_limit_seconds: TimeLimitSeconds = 60 * 60

    @property
    def webhooks_url(self) -> str | None:
        """Where fal's webhooks go, without the attempt's token at the end."""
        return None if self.public_url is None else f"{self.public_url}{FAL_WEBHOOKS_PATH}"

    @property
    def jwks_url(self) -> str:
        return self.fal_jwks_url or f"{self.fal_rest_url}/.well-known/jwks.json"
