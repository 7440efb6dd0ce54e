from pydantic import Field

from app.domain.payments import TOPUP_TOKENS_MAX
from app.presentation.schemas.fields import CanonicalUuid, RequestModel


class TopUpRequest(RequestModel):
    external_user_id: CanonicalUuid = Field(description="The user who paid. An unknown one gets an account.")
    amount: int = Field(ge=1, le=TOPUP_TOKENS_MAX, description="Tokens to credit.")
