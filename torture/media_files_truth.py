"""What must be true of files at the end: of rows, objects, links, jobs, counts and fal's copies."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.media_samples import SERIAL_NUMBER
from torture.callers import Answer
from torture.media_files import Told
from torture.media_files_time import TimePassed
from torture.media_truth import PART, RECORD_SECONDS, Download, File
from torture.report import Check

INPUT_DELETED = "input_deleted"
# Of these nobody can know whether fal has them, which has nothing to do with their files.
NOT_FOR_A_FILE = frozenset({"submit_unknown"})
# By a link of ours fal finds a file only while the API lives that the link names.
UNREACHABLE = "file_unreachable"
# The decoder of a process that was killed may go on for a moment.
DECODER_SECONDS = 10


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file with bytes as the database has it."""

    id: str
    user_id: str
    size_bytes: int
    sha256: str
    is_stored: bool
    deleted_because: str | None
    erased_at: float | None

    @property
    def is_live(self) -> bool:
        return self.is_stored and self.deleted_because is None


@dataclass(frozen=True, slots=True)
class JobWithFiles:
    id: str
    status: str
    error_code: str | None
    charged_tokens: int
    files: Sequence[str]
    """Outputs by the name of the output."""


@dataclass(frozen=True, slots=True)
class Look:
    """At a file, by its owner, by one API."""

    file: str
    answer: Answer
    link: Download | None
    """The one that 201 gave; None where nobody was told of any."""
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class FileFindings:
    kept: Mapping[str, KeptFile]
    told: Mapping[str, Told]
    given_up: frozenset[str]
    """Files and outputs that users asked to be deleted, or whose time was over."""
    jobs: Sequence[JobWithFiles]
    with_bytes: Sequence[str]
    """Jobs that have some of a picture in their row."""
    looks: Sequence[Look]
    before: Sequence[File]
    after: Sequence[File]
    """The store before and after the audit removed what it found."""
    counted: Mapping[str, int]
    """Bytes of the files of each user, as the row of the account says."""
    bytes_max: int
    is_by_links: bool
    """Files are handed over as links of ours, and not by fal's storage."""
    at_fal: Mapping[str, int]
    """How many uploads fal has of each digest."""
    kills: int
    """Of workers, which hand files over."""
    last_kill_at: float
    refusals: Sequence[Answer]
    full: Sequence[Answer]
    wrong: Sequence[str]
    time: TimePassed
    apis: int


def file_checks(found: FileFindings) -> list[Check]:
    return [
        _accepted_is_kept(found),
        _links_are_right(found),
        _deleted_is_gone(found),
        _only_for_a_deleted_file(found),
        Check("no row of a job has bytes of a picture", len(found.jobs), found.with_bytes),
        _counts_are_right(found),
        _objects_and_rows(found),
        _never_at_fal(found) if found.is_by_links else _once_at_fal(found),
        _received_files_are_gone(found),
        _data_stays_a_day(found),
        _refused_for_want_of_room(found),
        Check("what is not taken, or somebody else's, is refused", len(found.refusals), found.wrong),
    ]


def _accepted_is_kept(found: FileFindings) -> Check:
    expected = [file_id for file_id in found.told if file_id not in found.given_up]
    violations = []
    for file_id in expected:
        row, told = found.kept.get(file_id), found.told[file_id]
        said = (told.view["size_bytes"], told.view["sha256"])
        if row is None or not row.is_live or (row.size_bytes, row.sha256) != said:
            violations.append(f"{file_id} was answered 201 with {said} and is {row}")
        if (told.view["width"], told.view["height"]) != told.sample.size:
            violations.append(f"{file_id} is shown {told.sample.size} and was said to be {told.view}")
        answers = [look.answer for look in found.looks if look.file == file_id]
        if len(answers) != found.apis or any(not _is_the_same(answer, told.view) for answer in answers):
            violations.append(f"{file_id} was answered 201 with {told.view} and now {answers}")
    return Check("a file that was accepted is kept for as long as was said", len(expected), violations)


def _is_the_same(answer: Answer, view: Mapping[str, Any]) -> bool:
    # The link names the API that was asked.
    return answer.status == 200 and answer.body | {"url": ""} == {**view, "url": ""}


def _links_are_right(found: FileFindings) -> Check:
    looks = [look for look in found.looks if look.link is not None and look.file not in found.given_up]
    violations = []
    for look in looks:
        view, link = found.told[look.file].view, look.link
        assert link is not None
        if (link.status, link.size_bytes, link.sha256) != (200, view["size_bytes"], view["sha256"]):
            violations.append(f"{link}, and was said to be {view}")
        if SERIAL_NUMBER.encode() in look.content:
            violations.append(f"{link} tells by which camera it was made")
    return Check("its link leads to the bytes of the digest that was said, by every API", len(looks), violations)


def _deleted_is_gone(found: FileFindings) -> Check:
    """What came after the erasure was put there by a process that went on, as with outputs."""
    deleted = [each for each in found.kept.values() if each.deleted_because is not None]
    before = {file.name: file for file in found.before}
    after = {file.name for file in found.after}
    violations = [f"{each.id} was never erased" for each in deleted if each.erased_at is None]
    for each in deleted:
        file = before.get(each.id)
        if file is not None and each.erased_at is not None and file.placed_at < each.erased_at - RECORD_SECONDS:
            violations.append(f"{each.id} was erased at {each.erased_at:.0f}, and there is {file}")
    violations += [f"{each.id} is there after the audit" for each in deleted if each.id in after]
    known = {each.id for each in deleted}
    violations += [f"{file_id} should be deleted" for file_id in found.told if _is_late(found, file_id)]
    for look in found.looks:
        statuses = {look.answer.status} | ({look.link.status} if look.link is not None else set())
        if look.file in known and statuses != {410}:
            violations.append(f"{look.file} is deleted, and answered {statuses}")
    return Check("a deleted file is answered 410, and nothing of it is left", len(deleted), violations)


def _is_late(found: FileFindings, file_id: str) -> bool:
    row = found.kept.get(file_id)
    return file_id in found.given_up and (row is None or row.deleted_because is None)


def _only_for_a_deleted_file(found: FileFindings) -> Check:
    violations = []
    for job in found.jobs:
        if job.status == "COMPLETED" or job.error_code in NOT_FOR_A_FILE:
            continue
        is_unreachable = found.is_by_links and job.error_code == UNREACHABLE
        is_given_up = job.error_code == INPUT_DELETED and found.given_up.intersection(job.files)
        if not is_unreachable and not is_given_up:
            violations.append(f"{job} failed, and nobody deleted a file of it")
        if job.charged_tokens:
            violations.append(f"{job} failed, and was charged")
    return Check(
        "a job fails for its files only if one was deleted, and costs nothing then", len(found.jobs), violations
    )


def _counts_are_right(found: FileFindings) -> Check:
    sums: Counter[str] = Counter()
    for each in found.kept.values():
        if each.deleted_because is None:
            sums[each.user_id] += each.size_bytes
    violations = [
        f"{user_id}: {counted} bytes are counted, {sums[user_id]} are kept, {found.bytes_max} allowed"
        for user_id, counted in found.counted.items()
        if counted != sums[user_id] or counted > found.bytes_max
    ]
    return Check("the bytes that count are those that are kept, and no more than allowed", len(sums), violations)


def _objects_and_rows(found: FileFindings) -> Check:
    violations = []
    for file in found.before:
        part = PART.fullmatch(file.name)
        if (part["output"] if part else file.name) not in found.kept:
            violations.append(f"{file} is of no row")
    after = {file.name: file for file in found.after}
    live = {each.id: each for each in found.kept.values() if each.is_live}
    violations += [f"{name} is of no live row" for name in after if name not in live]
    for each in live.values():
        object_ = after.get(each.id)
        if object_ is None or (object_.size_bytes, object_.sha256) != (each.size_bytes, each.sha256):
            violations.append(f"{each} is stored, and there is {object_}")
    left = [f"{each.id} was never stored, and is not over" for each in found.kept.values() if _is_unfinished(each)]
    return Check("each stored file is an object, and each object a stored file", len(after), violations + left)


def _is_unfinished(each: KeptFile) -> bool:
    return not each.is_stored and each.deleted_because is None


def _once_at_fal(found: FileFindings) -> Check:
    """A process that dies between the upload and the record of it leaves one behind."""
    rows: defaultdict[str, int] = defaultdict(int)
    for each in found.kept.values():
        rows[each.sha256] += 1
    violations = [f"fal has {digest}, which is no file" for digest in found.at_fal if digest not in rows]
    more = {digest: count - rows[digest] for digest, count in found.at_fal.items() if count > rows[digest]}
    if sum(more.values()) > found.kills:
        violations.append(f"fal has more uploads than files: {more}, after {found.kills} kills of workers")
    return Check(
        "fal has each file once, but for one more per kill of a worker", sum(found.at_fal.values()), violations
    )


def _never_at_fal(found: FileFindings) -> Check:
    violations = [f"fal has {count} of {digest}" for digest, count in found.at_fal.items()]
    return Check("fal's storage gets nothing where fal can reach us", len(found.jobs), violations)


def _received_files_are_gone(found: FileFindings) -> Check:
    time = found.time
    violations = [
        f"{name} was left, and no kill came after it"
        for name, written_at in time.received.items()
        if written_at > found.last_kill_at + DECODER_SECONDS
    ]
    violations += [f"{name} is left after days" for name in time.received_after]
    return Check("of received files nothing is left but by kills, and that for a day", len(found.told), violations)


def _data_stays_a_day(found: FileFindings) -> Check:
    wrong = [f"{found.time.put_off_wrongly} are gone before"] if found.time.put_off_wrongly else []
    return Check("the file of a data: URI stays for a day after its job", found.time.put_off, wrong)


def _refused_for_want_of_room(found: FileFindings) -> Check:
    violations = [str(answer) for answer in found.full if not _is_for_want_of_room(answer, found.bytes_max)]
    return Check("409 is said of a file only where it does not fit", len(found.full), violations)


def _is_for_want_of_room(answer: Answer, bytes_max: int) -> bool:
    body = answer.body
    used_bytes, size_bytes = int(body.get("used_bytes", 0)), int(body.get("size_bytes", 0))
    return body["code"] == "files_full" and used_bytes <= bytes_max < used_bytes + size_bytes
