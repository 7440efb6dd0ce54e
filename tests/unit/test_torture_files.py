"""What the torture says of files must be able to fail: by each kind of broken row, object, link, job and count."""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.media_samples import SERIAL_NUMBER
from torture.callers import Answer, Book
from torture.media_files import Told
from torture.media_files_time import TimePassed
from torture.media_files_truth import FileFindings, JobWithFiles, KeptFile, Look, file_checks
from torture.media_pictures import BROKEN, Sample, as_form, broken, sample
from torture.media_truth import Download, File

KEPT = "a file that was accepted is kept for as long as was said"
LINKS = "its link leads to the bytes of the digest that was said, by every API"
GONE = "a deleted file is answered 410, and nothing of it is left"
FAILED = "a job fails for its files only if one was deleted, and costs nothing then"
BYTES = "no row of a job has bytes of a picture"
COUNTS = "the bytes that count are those that are kept, and no more than allowed"
OBJECTS = "each stored file is an object, and each object a stored file"
ONCE = "fal has each file once, but for one more per kill of a worker"
RECEIVED = "of received files nothing is left but by kills, and that for a day"
DATA = "the file of a data: URI stays for a day after its job"
ROOM = "409 is said of a file only where it does not fit"
REFUSED = "what is not taken, or somebody else's, is refused"
CONTENT = {"kept": b"a picture", "dropped": b"another picture"}
ERASED_AT = 1_000.0
LAST_KILL_AT = 2_000.0


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def view(name: str) -> dict[str, Any]:
    content = CONTENT[name]
    return {"size_bytes": len(content), "sha256": digest(content), "width": 400, "height": 384, "url": "http://api/f"}


def row(name: str, **columns: Any) -> KeptFile:
    content = CONTENT[name]
    return replace(
        KeptFile(name, "user", len(content), digest(content), is_stored=True, deleted_because=None, erased_at=None),
        **columns,
    )


def object_of(name: str, content: bytes, placed_at: float = 0.0) -> File:
    return File(f"files/ab/cd/{name}", len(content), digest(content), placed_at)


def look(name: str, status: int = 200, content: bytes | None = None) -> Look:
    found = CONTENT[name] if content is None else content
    link = Download(name, status, len(found), digest(found))
    # By another API.
    answer = Answer(status, {**view(name), "url": "http://api-2/f"} if status == 200 else {})
    return Look(name, answer, link, found)


@dataclass
class Case:
    """A file that is kept and one that was deleted while a job waited, for a test to spoil."""

    rows: dict[str, KeptFile] = field(default_factory=dict)
    told: dict[str, Told] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=lambda: {"dropped"})
    jobs: list[JobWithFiles] = field(default_factory=list)
    with_bytes: list[str] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    before: list[File] = field(default_factory=list)
    after: list[File] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=lambda: {"user": len(CONTENT["kept"])})
    bytes_max: int = 20
    is_by_links: bool = False
    at_fal: dict[str, int] = field(default_factory=dict)
    received: dict[str, float] = field(default_factory=lambda: {"by a kill": LAST_KILL_AT})
    received_after: list[str] = field(default_factory=list)
    put_off_wrongly: int = 0
    full: list[Answer] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows |= {"kept": row("kept"), "dropped": row("dropped", deleted_because="requested", erased_at=ERASED_AT)}
        for name, content in CONTENT.items():
            self.told[name] = Told(Book("user"), view(name), Sample(content, "image/png", (400, 384)))
        self.jobs += [
            JobWithFiles("done", "COMPLETED", None, 6, ["kept"]),
            JobWithFiles("failed", "FAILED", "input_deleted", 0, ["kept", "dropped"]),
            # Nobody knows whether fal has it.
            JobWithFiles("unknown", "FAILED", "submit_unknown", 0, ["kept"]),
        ]
        self.looks += [look("kept"), look("dropped", 410, b"{}")]
        self.after.append(object_of("kept", CONTENT["kept"]))
        # The write of a process that was killed, and of one that went on after the erasure.
        self.before += [
            *self.after,
            object_of("kept.0123456789abcdef.part", b"a pic"),
            object_of("dropped", CONTENT["dropped"], ERASED_AT + 1),
        ]
        # A process was killed before it wrote down where the first one is.
        self.at_fal |= {digest(CONTENT["kept"]): 2, digest(CONTENT["dropped"]): 1}
        self.full.append(Answer(409, {"code": "files_full", "used_bytes": 15, "size_bytes": 9}))

    def change(self, name: str, **columns: Any) -> None:
        self.rows[name] = replace(self.rows[name], **columns)

    @property
    def broken_claims(self) -> set[str]:
        return {check.claim for check in file_checks(self.findings) if not check.holds}

    @property
    def findings(self) -> FileFindings:
        return FileFindings(
            kept=self.rows,
            told=self.told,
            given_up=frozenset(self.given_up),
            jobs=self.jobs,
            with_bytes=self.with_bytes,
            looks=self.looks,
            before=self.before,
            after=self.after,
            counted=self.counted,
            bytes_max=self.bytes_max,
            is_by_links=self.is_by_links,
            at_fal=self.at_fal,
            kills=1,
            last_kill_at=LAST_KILL_AT,
            refusals=[Answer(422, {})],
            full=self.full,
            wrong=self.wrong,
            time=TimePassed([], 1, self.put_off_wrongly, self.received, self.received_after),
            apis=1,
        )


def lose_the_row(case: Case) -> None:
    del case.rows["kept"]


def delete_what_nobody_gave_up(case: Case) -> None:
    case.change("kept", deleted_because="requested", erased_at=ERASED_AT)
    case.after.clear()
    case.before.clear()
    case.looks[0] = look("kept", 410, b"{}")
    case.counted["user"] = 0


def store_something_else(case: Case) -> None:
    case.change("kept", sha256=digest(b"a PICTURE"))


def leave_it_on_its_side(case: Case) -> None:
    case.told["kept"] = replace(case.told["kept"], sample=Sample(b"", "image/jpeg", (384, 400)))


def answer_otherwise_than_before(case: Case) -> None:
    case.looks[0] = replace(case.looks[0], answer=Answer(200, {**view("kept"), "expires_at": "sooner"}))


def ask_no_api(case: Case) -> None:
    case.looks.append(case.looks[0])


def serve_another_file(case: Case) -> None:
    case.looks[0] = replace(case.looks[0], link=look("dropped").link)


def serve_the_serial_number(case: Case) -> None:
    case.looks[0] = replace(case.looks[0], content=SERIAL_NUMBER.encode())


def show_what_is_deleted(case: Case) -> None:
    case.looks[1] = look("dropped")


def serve_what_is_deleted(case: Case) -> None:
    case.looks[1] = replace(case.looks[1], link=look("dropped").link)


def erase_never(case: Case) -> None:
    case.change("dropped", erased_at=None)


def say_erased_and_leave_it(case: Case) -> None:
    case.before[2] = object_of("dropped", CONTENT["dropped"], ERASED_AT - 1)


def leave_it_after_the_audit(case: Case) -> None:
    case.after.append(case.before[2])


def delete_nothing(case: Case) -> None:
    case.change("dropped", deleted_because=None, erased_at=None)
    case.before.append(object_of("dropped", CONTENT["dropped"]))
    case.after.append(case.before[-1])
    case.counted["user"] = 24
    case.bytes_max = 24
    case.full[0].body["used_bytes"] = 24


def fail_with_what_is_kept(case: Case) -> None:
    case.jobs.append(JobWithFiles("wrong", "FAILED", "input_deleted", 0, ["kept"]))


def fail_for_another_reason(case: Case) -> None:
    case.jobs.append(JobWithFiles("wrong", "FAILED", "file_download_error", 0, ["dropped"]))


def charge_for_a_deleted_file(case: Case) -> None:
    case.jobs[1] = replace(case.jobs[1], charged_tokens=6)


def write_base64(case: Case) -> None:
    case.with_bytes.append("job: data:image/png;base64,iVBORw0KGgo")


def count_too_little(case: Case) -> None:
    case.counted["user"] -= 1


def keep_too_much(case: Case) -> None:
    case.bytes_max = 8


def lose_the_object(case: Case) -> None:
    case.after.clear()


def damage_the_object(case: Case) -> None:
    case.after[0] = object_of("kept", b"a PICTURE")


def leave_a_stranger(case: Case) -> None:
    case.before.append(object_of("nobody", b"of another service"))


def leave_an_upload_unfinished(case: Case) -> None:
    case.rows["unfinished"] = replace(row("kept", is_stored=False), id="unfinished", user_id="another")
    case.counted["another"] = len(CONTENT["kept"])


def upload_twice_more(case: Case) -> None:
    # Two more than there are files, after one kill.
    case.at_fal[digest(CONTENT["dropped"])] = 2


def upload_what_is_no_file(case: Case) -> None:
    case.at_fal[digest(b"nobody's")] = 1


def leave_what_was_received(case: Case) -> None:
    case.received["by no kill"] = LAST_KILL_AT + 60


def leave_it_for_days(case: Case) -> None:
    case.received_after.append("by a kill")


def end_data_before_its_day(case: Case) -> None:
    case.put_off_wrongly = 1


def refuse_what_fits(case: Case) -> None:
    case.full.append(Answer(409, {"code": "files_full", "used_bytes": 11, "size_bytes": 9}))


def refuse_for_another_reason(case: Case) -> None:
    case.full.append(Answer(409, {"code": "files_not_kept"}))


def take_what_is_broken(case: Case) -> None:
    case.wrong.append("not 422: 201")


BREAKS: dict[Callable[[Case], None], set[str]] = {
    lose_the_row: {KEPT, COUNTS, OBJECTS, ONCE},
    delete_what_nobody_gave_up: {KEPT, LINKS, COUNTS, OBJECTS},
    store_something_else: {KEPT, OBJECTS, ONCE},
    leave_it_on_its_side: {KEPT},
    answer_otherwise_than_before: {KEPT},
    ask_no_api: {KEPT},
    serve_another_file: {LINKS},
    serve_the_serial_number: {LINKS},
    show_what_is_deleted: {GONE},
    serve_what_is_deleted: {GONE},
    erase_never: {GONE},
    say_erased_and_leave_it: {GONE},
    leave_it_after_the_audit: {GONE, OBJECTS},
    delete_nothing: {GONE},
    fail_with_what_is_kept: {FAILED},
    fail_for_another_reason: {FAILED},
    charge_for_a_deleted_file: {FAILED},
    write_base64: {BYTES},
    count_too_little: {COUNTS},
    keep_too_much: {COUNTS, ROOM},
    lose_the_object: {OBJECTS},
    damage_the_object: {OBJECTS},
    leave_a_stranger: {OBJECTS},
    leave_an_upload_unfinished: {OBJECTS},
    upload_twice_more: {ONCE},
    upload_what_is_no_file: {ONCE},
    leave_what_was_received: {RECEIVED},
    leave_it_for_days: {RECEIVED},
    end_data_before_its_day: {DATA},
    refuse_what_fits: {ROOM},
    refuse_for_another_reason: {ROOM},
    take_what_is_broken: {REFUSED},
}


def test_right_files_break_no_claim() -> None:
    assert Case().broken_claims == set()


@pytest.mark.parametrize(("spoil", "claims"), BREAKS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_broken_is_noticed(spoil: Callable[[Case], None], claims: set[str]) -> None:
    case = Case()

    spoil(case)

    assert case.broken_claims == claims


def test_by_links_fal_may_find_no_api_and_its_storage_gets_nothing() -> None:
    case = Case(is_by_links=True)
    case.jobs.append(JobWithFiles("unreachable", "FAILED", "file_unreachable", 0, ["kept"]))

    assert case.broken_claims == {"fal's storage gets nothing where fal can reach us"}

    case.at_fal.clear()
    assert case.broken_claims == set()


def test_every_claim_can_be_broken() -> None:
    assert {check.claim for check in file_checks(Case().findings)} == set().union(*BREAKS.values())


def test_no_two_samples_are_alike_and_each_is_small() -> None:
    rng = random.Random(7)

    samples = [sample(rng) for _ in range(40)]

    assert len({each.content for each in samples}) == len(samples)
    assert {each.content_type for each in samples} == {"image/jpeg", "image/png", "image/heic"}
    assert max(len(each.content) for each in samples) < 20_000


def test_each_kind_of_what_is_broken_comes_up() -> None:
    rng = random.Random(7)

    assert len({broken(rng)[:4] for _ in range(40)}) == len(BROKEN)


def test_a_form_has_the_file_whole() -> None:
    body, content_type = as_form(b"a picture\r\n")

    boundary = content_type.partition("boundary=")[2]
    assert b"\r\n\r\na picture\r\n\r\n--" + boundary.encode() in body
