"""What the torture says of media must be able to fail: by each kind of broken store, row, link and download."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from torture.media_truth import GONE, Audit, Download, File, Findings, Kept, digests_differ, media_checks

STORED = "each output that is not deleted is stored"
RIGHT = "a copy is what fal serves, and its row says so"
TOLD = "the log tells of each stored output once"
LINKS = "every link leads to its file, by every API"
OVER = "a link to what is deleted is answered 410, by every API"
ERASED = "of a deleted output nothing is left in the store"
URLS = "a job of which nothing is left has no URL"
LOST = "nothing is said to be lost that fal has"
STRANGE = "the store has nothing but outputs and writes that were not finished"
AUDIT = "after the audit the store is as the rows say, and nothing more"
DOWNLOADS = "a download is whole and right, 503, or 410 once it is deleted"
LATE = "nobody gets a file after it was said to be deleted"
DIFFERENT = "no two files of fal are the same"
CONTENT = {"kept-0": b"the first picture", "dropped-0": b"another picture"}
ERASED_AT = 1_000.0


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def kept(job: str, **columns: Any) -> Kept:
    content = CONTENT[f"{job}-0"]
    row = Kept(
        id=f"{job}-0",
        job_id=job,
        prompt="picture 1",
        number=0,
        fal_request_id="request",
        is_stored=True,
        size_bytes=len(content),
        sha256=digest(content),
        deleted_because=None,
        erased_at=None,
        has_urls=True,
        is_last=False,
    )
    return replace(row, **columns)


def answer(output: str, content: bytes, status: int = 200, **more: Any) -> Download:
    return Download(output, status, len(content), digest(content), **more)


def file(output: str, content: bytes, placed_at: float = 0.0) -> File:
    return File(f"outputs/ab/cd/{output}", len(content), digest(content), placed_at)


@dataclass
class Case:
    """An output that is kept and one that is deleted, for a test to spoil."""

    rows: dict[str, Kept] = field(default_factory=dict)
    served: dict[str, bytes] = field(default_factory=lambda: dict(CONTENT))
    told: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CONTENT, 1))
    before: list[File] = field(default_factory=list)
    after: list[File] = field(default_factory=list)
    audit: Audit = field(default_factory=lambda: Audit(0, said(objects=1, stored=1)))
    looks: list[Download] = field(default_factory=list)
    downloads: list[Download] = field(default_factory=list)
    shown: dict[str, Any] = field(default_factory=lambda: {"url": None})

    def __post_init__(self) -> None:
        self.rows["kept-0"] = kept("kept")
        self.rows["dropped-0"] = kept(
            "dropped", deleted_because="requested", erased_at=ERASED_AT, has_urls=False, is_last=True
        )
        self.after.append(file("kept-0", CONTENT["kept-0"]))
        # The write of a process that was killed, and of one that went on after the erasure.
        self.before += [
            *self.after,
            file("kept-0.0123456789abcdef.part", b"the fir"),
            file("dropped-0", CONTENT["dropped-0"], ERASED_AT + 1),
        ]
        self.looks += [answer("kept-0", CONTENT["kept-0"]), answer("dropped-0", b"{}", 410)]
        self.downloads += [
            answer("kept-0", CONTENT["kept-0"]),
            answer("kept-0", CONTENT["kept-0"][4:9], 206, start=4, of_bytes=len(CONTENT["kept-0"])),
            answer("kept-0", b"{}", 503, may_be_put_off=True),
            answer("dropped-0", CONTENT["dropped-0"]),
            answer("dropped-0", b"{}", 410, is_after_the_end=True),
        ]

    def change(self, output: str, **columns: Any) -> None:
        self.rows[output] = replace(self.rows[output], **columns)

    @property
    def findings(self) -> Findings:
        return Findings(
            kept=self.rows,
            served=self.served,
            told=self.told,
            before=self.before,
            after=self.after,
            audit=self.audit,
            looks=self.looks,
            downloads=self.downloads,
            views={"dropped": {"result": {"images": [self.shown]}, "outputs": [{"url": None}]}},
            apis=1,
        )

    def broken_claims(self) -> set[str]:
        checks = [*media_checks(self.findings), digests_differ(self.findings)]
        assert all(check.examined for check in checks)
        return {check.claim for check in checks if check.violations}


def said(*, objects: int, stored: int, orphans: int = 0, damaged: int = 0, missing: int = 0) -> str:
    return (
        f"{objects} objects: {orphans} orphans, 0 unknown, {damaged} damaged. "
        f"{stored} stored outputs and files: {missing} missing. 0 accounts miscounted.\n"
    )


def leave_one_at_fal(case: Case) -> None:
    case.rows["other-0"] = replace(kept("kept", is_stored=False), id="other-0")


def store_half_of_it(case: Case) -> None:
    half = CONTENT["kept-0"][:8]
    case.change("kept-0", size_bytes=len(half), sha256=digest(half))
    case.after[0] = file("kept-0", half)
    case.looks[0] = answer("kept-0", half)


def damage_the_object(case: Case) -> None:
    case.after[0] = file("kept-0", b"THE FIRST PICTURE")


def lose_the_object(case: Case) -> None:
    case.after.clear()


def tell_twice(case: Case) -> None:
    case.told["kept-0"] = 2


def tell_nothing(case: Case) -> None:
    del case.told["dropped-0"]


def answer_with_another_file(case: Case) -> None:
    case.looks[0] = answer("kept-0", CONTENT["dropped-0"])


def answer_nothing(case: Case) -> None:
    case.looks[0] = answer("kept-0", b"{}", 503)


def ask_for_no_link(case: Case) -> None:
    case.looks[0] = replace(case.looks[1], status=410)


def serve_what_is_deleted(case: Case) -> None:
    case.looks[1] = answer("dropped-0", CONTENT["dropped-0"])


def erase_never(case: Case) -> None:
    case.change("dropped-0", erased_at=None)


def say_erased_and_leave_it(case: Case) -> None:
    case.before[2] = file("dropped-0", CONTENT["dropped-0"], ERASED_AT - 1)


def leave_it_after_the_audit(case: Case) -> None:
    case.after.append(case.before[2])


def keep_urls(case: Case) -> None:
    case.change("dropped-0", has_urls=True)


def show_urls(case: Case) -> None:
    case.shown["url"] = "http://fal/picture.png"


def lose_what_fal_has(case: Case) -> None:
    case.change("dropped-0", deleted_because="lost")


def leave_a_stranger(case: Case) -> None:
    case.before.append(file("nobody-0", b"of another service"))


def leave_a_write_of_nobody(case: Case) -> None:
    case.before.append(file("nobody-0.0123456789abcdef.part", b"half"))


def leave_a_write_after_the_audit(case: Case) -> None:
    case.after.append(case.before[1])


def end_the_audit_with_1(case: Case) -> None:
    case.audit = Audit(1, case.audit.text)


def find_one_missing(case: Case) -> None:
    case.audit = Audit(0, said(objects=1, stored=1, missing=1))


def download_half(case: Case) -> None:
    case.downloads.append(answer("kept-0", CONTENT["kept-0"][:8]))


def download_anothers(case: Case) -> None:
    case.downloads.append(answer("kept-0", CONTENT["dropped-0"]))


def download_another_part(case: Case) -> None:
    case.downloads[1] = replace(case.downloads[1], start=5)


def download_a_part_of_another_size(case: Case) -> None:
    case.downloads[1] = replace(case.downloads[1], of_bytes=5)


def get_a_500(case: Case) -> None:
    case.downloads.append(answer("kept-0", b"{}", 500))


def get_a_404(case: Case) -> None:
    case.downloads.append(answer("kept-0", b"{}", 404))


def be_put_off_for_ever(case: Case) -> None:
    case.downloads[2] = replace(case.downloads[2], may_be_put_off=False)


def say_deleted_what_is_not(case: Case) -> None:
    case.downloads.append(answer("kept-0", b"{}", 410))


def download_what_is_deleted(case: Case) -> None:
    case.downloads.append(answer("dropped-0", CONTENT["dropped-0"], is_after_the_end=True))


def draw_one_picture_twice(case: Case) -> None:
    case.served["twin-0"] = CONTENT["kept-0"]


BREAKS: dict[Callable[[Case], None], set[str]] = {
    leave_one_at_fal: {STORED},
    store_half_of_it: {RIGHT},
    damage_the_object: {RIGHT},
    lose_the_object: {RIGHT, AUDIT},
    tell_twice: {TOLD},
    tell_nothing: {TOLD},
    answer_with_another_file: {LINKS},
    answer_nothing: {LINKS},
    ask_for_no_link: {LINKS},
    serve_what_is_deleted: {OVER},
    erase_never: {ERASED},
    say_erased_and_leave_it: {ERASED},
    leave_it_after_the_audit: {ERASED, AUDIT},
    keep_urls: {URLS},
    show_urls: {URLS},
    lose_what_fal_has: {LOST},
    leave_a_stranger: {STRANGE},
    leave_a_write_of_nobody: {STRANGE},
    leave_a_write_after_the_audit: {AUDIT},
    end_the_audit_with_1: {AUDIT},
    find_one_missing: {AUDIT},
    download_half: {DOWNLOADS},
    download_anothers: {DOWNLOADS},
    download_another_part: {DOWNLOADS},
    download_a_part_of_another_size: {DOWNLOADS},
    get_a_500: {DOWNLOADS},
    get_a_404: {DOWNLOADS},
    be_put_off_for_ever: {DOWNLOADS},
    say_deleted_what_is_not: {DOWNLOADS},
    download_what_is_deleted: {LATE},
    draw_one_picture_twice: {DIFFERENT},
}


def test_a_right_store_breaks_no_claim() -> None:
    assert Case().broken_claims() == set()


@pytest.mark.parametrize(("spoil", "claims"), BREAKS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_broken_is_noticed(spoil: Callable[[Case], None], claims: set[str]) -> None:
    case = Case()

    spoil(case)

    checks = [*media_checks(case.findings), digests_differ(case.findings)]
    assert {check.claim for check in checks if not check.holds} == claims


def test_every_claim_can_be_broken() -> None:
    checks = [*media_checks(Case().findings), digests_differ(Case().findings)]

    assert {check.claim for check in checks} == set().union(*BREAKS.values())


def test_only_what_fal_never_had_may_be_lost() -> None:
    case = Case()

    case.change("dropped-0", deleted_because="lost", prompt=f"picture 2 {GONE}")

    assert case.broken_claims() == set()
