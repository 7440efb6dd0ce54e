from enum import StrEnum


class GenerationKind(StrEnum):
    """What a generation makes of what: the `type` of a job and of a model."""

    TEXT_TO_IMAGE = "TEXT_TO_IMAGE"
    IMAGE_TO_IMAGE = "IMAGE_TO_IMAGE"
    TEXT_TO_VIDEO = "TEXT_TO_VIDEO"
    IMAGE_TO_VIDEO = "IMAGE_TO_VIDEO"

    @property
    def is_video(self) -> bool:
        return self in (GenerationKind.TEXT_TO_VIDEO, GenerationKind.IMAGE_TO_VIDEO)

    @property
    def route(self) -> str:
        """Where one is started."""
        return f"/generations/{'videos' if self.is_video else 'images'}/{self.value.lower().replace('_', '-')}"
