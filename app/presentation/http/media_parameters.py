"""The parts of a link to media. What is wrong with one of them is wrong with the link."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request


@dataclass(frozen=True, slots=True)
class LinkPart:
    name: str
    description: str
    is_in_path: bool = False
    is_required: bool = True

    async def __call__(self, request: Request) -> str:
        """Empty where it is missing."""
        values = request.path_params if self.is_in_path else request.query_params
        return str(values.get(self.name, ""))

    @property
    def parameter(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "in": "path" if self.is_in_path else "query",
            "required": self.is_required,
            "description": self.description,
            "schema": {"type": "string"},
        }


MediaId = Annotated[str, Depends(LinkPart("media", "What it leads to.", is_in_path=True))]
Expires = Annotated[str, Depends(LinkPart("expires", "Until when it is good, in seconds since 1970."))]
Signature = Annotated[str, Depends(LinkPart("signature", "What makes it ours."))]
# A signature is none of its business: who may see a file may save it.
Saved = Annotated[
    str,
    Depends(LinkPart("download", "Anything, to have the file saved and not shown by a browser.", is_required=False)),
]
MEDIA_NAME = Depends(LinkPart("name", "For whoever saves the file. Any other name leads to the same.", is_in_path=True))
