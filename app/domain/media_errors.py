"""Why a link to media leads nowhere, and why media stay."""

from collections.abc import Mapping
from datetime import datetime

from app.domain.errors import Conflict, DomainError, NotFound, TooManyRequests, Unavailable
from app.domain.outputs import DeletedBecause


class LinkNotValid(DomainError):
    code = "link_not_valid"
    default_detail = "This is no link of ours, or part of it is missing. Read the job for its links."


class MediaNotFound(NotFound):
    code = "media_not_found"
    default_detail = "There is no file behind this link."


class LinkExpired(DomainError):
    code = "link_expired"
    default_detail = "The time of this link is over. Read the job: it has a new one for as long as the file is kept."


class MediaDeleted(DomainError):
    code = "media_deleted"
    default_detail = "The file was deleted."

    def __init__(self, at: datetime, because: DeletedBecause | str) -> None:
        why = _REASONS.get(str(because), "")
        super().__init__(f"The file was deleted at {at.isoformat(timespec='seconds')}{why}. It cannot be had again.")


_REASONS: Mapping[str, str] = {
    DeletedBecause.EXPIRED: ", when the time was over for which it is kept",
    DeletedBecause.REQUESTED: ", as its owner asked",
    DeletedBecause.LOST: ", because the provider did not have it any more",
}


class MediaUnavailable(Unavailable):
    code = "media_unavailable"
    default_detail = "The file cannot be read right now. Try again in a few seconds."


class TooManyDownloads(TooManyRequests):
    code = "too_many_downloads"
    default_detail = "Too many files of this account are being downloaded at once. Wait for some of them to end."


class JobUnfinished(Conflict):
    code = "job_unfinished"
    default_detail = "The job has not ended. Cancel it, or wait for its end, and delete its media then."
