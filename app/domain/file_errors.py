"""Why a file is not kept, or cannot be used."""

from typing import ClassVar

from app.domain.errors import Conflict, DomainError, FieldRefused, Figures, NotFound, TooManyRequests, Unavailable


class FileNotFound(NotFound):
    code = "file_not_found"
    default_detail = "You have no file with this id."


class FileNotTaken(DomainError):
    code = "file_not_taken"
    default_detail = (
        "The file is of no type that is taken: send PNG, JPEG, WebP, GIF, AVIF, HEIC, MP4, MOV, WebM, MP3 or WAV."
    )


class FilesFull(Conflict):
    code = "files_full"
    default_detail = "Your files would take more than you may keep. Delete some of them, or wait until they expire."
    example_figures: ClassVar[Figures] = {
        "used_bytes": 1_073_000_000,
        "bytes_max": 1_073_741_824,
        "size_bytes": 2_400_000,
    }

    def __init__(self, used_bytes: int = 0, bytes_max: int = 0, size_bytes: int = 0) -> None:
        super().__init__(
            f"Your files take {used_bytes} of the {bytes_max} bytes that you may keep, and this one has {size_bytes}. "
            "Nothing was done. Delete some of them, or wait until they expire."
        )
        self.figures = {"used_bytes": used_bytes, "bytes_max": bytes_max, "size_bytes": size_bytes}


class FilesNotKept(Conflict):
    code = "files_not_kept"
    default_detail = "This service keeps no files. Send a URL that anybody can open, or a data: URI."


class FilesUnavailable(Unavailable):
    code = "files_unavailable"
    default_detail = "Files cannot be kept right now. Nothing was done. Try again in a few seconds."


class TooManyUploads(TooManyRequests):
    code = "too_many_uploads"
    default_detail = "Too many files are being looked at. Nothing was done. Send it again when Retry-After says."

    def __init__(self, retry_after_seconds: int = 2) -> None:
        super().__init__(retry_after_seconds=retry_after_seconds)


class InputNotTaken(FieldRefused):
    """`field` may go on with the place in it, as `image_urls/1`."""

    code = "input_not_taken"
    default_detail = "The picture has 200 x 150 pixels: each side must have at least 300."
