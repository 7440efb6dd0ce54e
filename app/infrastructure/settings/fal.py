"""The account at fal, the ways to fal and back, and how long fal may take."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, SecretStr

from app.infrastructure.fal.urls import QueueUrls, checked_base_url, checked_key
from app.infrastructure.settings.secrets import (
    KEY_PARTS,
    can_be_a_header,
    is_providers_key,
    is_providers_key_or_not_set,
)
from app.infrastructure.settings.values import InProduction, Url, is_elsewhere, is_encrypted, is_public

FAL_QUEUE_URL = "https://queue.fal.run"
FAL_WEBHOOKS_PATH = "/webhooks/fal"
FAL_REST_URL = "https://rest.fal.ai"
FAL_API_URL = "https://api.fal.ai/v1"

_NOT_SIMULATED = InProduction(is_elsewhere, "must not be the simulator")
_ENCRYPTED = InProduction(
    lambda url: is_encrypted(url) or not is_elsewhere(url), "must start with https://: fal's key and answers go there"
)
_SIGNING_KEYS = InProduction(
    lambda url: url is None or is_encrypted(url), "must start with https://: what comes from there says who is fal"
)


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
# Each is a row that is looked at before a submission.
Concurrency = Annotated[int, Field(ge=0, le=10_000)]
TimeLimitSeconds = Annotated[int, Field(ge=1, le=86_400)]
WaitSeconds = Annotated[int, Field(ge=0, le=30 * 86_400)]


class FalSettings(BaseModel):
    fal_key: Annotated[
        FalKey | None, InProduction(is_providers_key, "must be set to the key of your fal.ai account"), KEY_PARTS
    ] = None
    fal_queue_url: Annotated[Url, AfterValidator(_is_queue), _NOT_SIMULATED, _ENCRYPTED] = FAL_QUEUE_URL
    fal_rest_url: Annotated[Url, _SIGNING_KEYS] = FAL_REST_URL
    fal_jwks_url: Annotated[Url | None, _SIGNING_KEYS] = None
    fal_user_id: Annotated[str, AfterValidator(can_be_a_header)] | None = None
    fal_admin_key: Annotated[
        FalKey | None,
        InProduction(is_providers_key_or_not_set, "must be an ADMIN key of your fal.ai account, or not set"),
        KEY_PARTS,
    ] = None
    fal_api_url: Annotated[Url, AfterValidator(checked_base_url), _NOT_SIMULATED, _ENCRYPTED] = FAL_API_URL
    public_url: Annotated[
        Url | None,
        InProduction(
            lambda url: url is None or (is_public(url) and is_encrypted(url)),
            "must be an https:// address that fal can reach from outside, not one of this machine or its network",
        ),
    ] = None
    safety_checker: SafetyChecker = SafetyChecker.USER

    fal_concurrency: Concurrency = 0
    image_time_limit_seconds: TimeLimitSeconds = 20 * 60
    video_time_limit_seconds: TimeLimitSeconds = 60 * 60
    queue_time_limit_seconds: WaitSeconds = 86_400
    admit_while_locked_seconds: WaitSeconds = 900

    @property
    def spends_money(self) -> bool:
        """A key that costs money, and not the simulator's."""
        return self.fal_key is not None and is_elsewhere(self.fal_queue_url)

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
