from uuid import UUID

from pydantic import BaseModel, Field

from app.presentation.schemas.fields import CanonicalUuid, RequestModel


class IssueKeyRequest(RequestModel):
    external_user_id: CanonicalUuid = Field(description="Your own id of the user.")
    rotate: bool = Field(default=False, description="Replace the key that the user already has. Needs proof.")


class IssuedKey(BaseModel):
    external_user_id: UUID
    api_key: str = Field(description="Shown this once: only a digest of it is stored.")
