"""What must be true of media once everything has come to rest: of rows, objects, links and what was downloaded."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torture.report import Check

# fal has nothing of these from the beginning, so that they are lost.
GONE = "[media:gone]"
LOST = "lost"
PART = re.compile(r"(?P<output>.+)\.[0-9a-f]{16}\.part")
TOTALS = re.compile(
    r"(\d+) objects: (\d+) orphans, (\d+) unknown, (\d+) damaged\. (\d+) stored outputs and files: (\d+) missing\."
)
# A process that goes on may put it there between the erasure and the record of it.
RECORD_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Kept:
    """An output as the database has it."""

    id: str
    job_id: str
    prompt: str
    number: int
    fal_request_id: str
    is_stored: bool
    size_bytes: int | None
    sha256: str | None
    deleted_because: str | None
    erased_at: float | None
    has_urls: bool
    """Whether the result of its job has any."""
    is_last: bool
    """Whether its job has nothing left that is not deleted."""

    @property
    def is_live(self) -> bool:
        return self.is_stored and self.deleted_because is None

    @property
    def is_deleted(self) -> bool:
        return self.deleted_because is not None


@dataclass(frozen=True, slots=True)
class File:
    """In the folder of the store."""

    key: str
    size_bytes: int
    sha256: str
    placed_at: float
    """When it got this name, as the kernel has it: a time that nobody can set."""

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Download:
    """A whole answer to somebody who followed a link."""

    output: str
    status: int
    size_bytes: int
    sha256: str
    start: int | None = None
    """Of the part that was answered."""
    of_bytes: int | None = None
    may_be_put_off: bool = False
    """Whether the answer says when to ask again."""
    is_after_the_end: bool = False
    """It was asked for after somebody was told that the file is deleted."""
    by: str = ""

    def __str__(self) -> str:
        part = "" if self.start is None else f" from {self.start} of {self.of_bytes}"
        return f"{self.output} {self.by}: {self.status}, {self.size_bytes} bytes{part}, {self.sha256[:12]}"


@dataclass(frozen=True, slots=True)
class Audit:
    """What `media verify` said."""

    code: int
    text: str

    @property
    def totals(self) -> Sequence[int]:
        found = TOTALS.search(self.text)
        return [int(number) for number in found.groups()] if found else []


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """The store before and after the audit removed what it found."""

    before: Sequence[File]
    after: Sequence[File]


@dataclass(slots=True)
class Findings:
    kept: Mapping[str, Kept]
    served: Mapping[str, bytes]
    """By the simulator, of each output that it has."""
    told: Mapping[str, int]
    """How often the log tells that an output is stored."""
    before: Sequence[File]
    after: Sequence[File]
    """The store before and after the audit removed what it found."""
    audit: Audit
    looks: Sequence[Download]
    """At the end, at every link, by every API."""
    downloads: Sequence[Download]
    """While things were killed."""
    views: Mapping[str, Mapping[str, Any]]
    apis: int
    inputs: int = 0
    """Objects that are none of outputs after the audit, which looks at them, too."""

    @property
    def live(self) -> Sequence[Kept]:
        return [each for each in self.kept.values() if each.is_live]

    @property
    def deleted(self) -> Sequence[Kept]:
        return [each for each in self.kept.values() if each.is_deleted]


def media_checks(found: Findings) -> list[Check]:
    return [
        _all_is_stored(found),
        _copies_are_right(found),
        _told_once(found),
        _links_are_right(found),
        _links_to_deleted_are_over(found),
        _deleted_is_erased(found),
        _urls_are_forgotten(found),
        _only_what_fal_lost_is_lost(found),
        _nothing_strange(found),
        _audit_leaves_what_rows_want(found),
        _downloads_are_right(found),
        _nothing_after_the_end(found),
    ]


def _all_is_stored(found: Findings) -> Check:
    left = [each for each in found.kept.values() if not each.is_deleted]
    violations = [f"{each.id} is not stored: {each.prompt}" for each in left if not each.is_stored]
    return Check("each output that is not deleted is stored", len(left), violations)


def _copies_are_right(found: Findings) -> Check:
    """Three witnesses: the row, the object, and fal."""
    files = {file.name: file for file in found.after}
    violations = []
    for each in found.live:
        served, file = found.served.get(each.id), files.get(each.id)
        said = (each.size_bytes, each.sha256)
        if served is None or said != (len(served), _digest(served)):
            violations.append(f"{each.id}: its row says {said}, fal serves {served and len(served)} bytes")
        if file is None or said != (file.size_bytes, file.sha256):
            violations.append(f"{each.id}: its row says {said}, the store has {file}")
    return Check("a copy is what fal serves, and its row says so", len(found.live), violations)


def _told_once(found: Findings) -> Check:
    stored = Counter(each.id for each in found.kept.values() if each.is_stored)
    told = Counter(found.told)
    violations = [f"{output} is stored and not told of" for output in stored - told]
    violations += [f"{output} is told of {told[output]} times" for output in told - stored]
    return Check("the log tells of each stored output once", stored.total(), violations)


def _links_are_right(found: Findings) -> Check:
    live = {each.id: each for each in found.live}
    looks = [look for look in found.looks if look.output in live]
    violations = [
        str(look)
        for look in looks
        if (look.status, look.size_bytes, look.sha256) != (200, live[look.output].size_bytes, live[look.output].sha256)
    ]
    return Check("every link leads to its file, by every API", len(looks), violations + _not_asked(found, live, looks))


def _links_to_deleted_are_over(found: Findings) -> Check:
    deleted = {each.id for each in found.deleted}
    looks = [look for look in found.looks if look.output in deleted]
    violations = [str(look) for look in looks if look.status != 410]
    return Check("a link to what is deleted is answered 410, by every API", len(looks), violations)


def _not_asked(found: Findings, expected: Iterable[str], looks: Sequence[Download]) -> list[str]:
    asked = Counter(look.output for look in looks)
    return [f"{output} was asked for {asked[output]} times" for output in expected if asked[output] != found.apis]


def _deleted_is_erased(found: Findings) -> Check:
    """What came after the erasure was put there by a process that went on, and is the audit's; see decision 0020."""
    left = {file.name: file for file in found.before}
    violations = [f"{each.id} was never erased" for each in found.deleted if each.erased_at is None]
    for each in found.deleted:
        file = left.get(each.id)
        if file is not None and each.erased_at is not None and file.placed_at < each.erased_at - RECORD_SECONDS:
            violations.append(f"{each.id} was erased at {each.erased_at:.0f}, and there is {file}")
    after = {file.name for file in found.after}
    violations += [f"{each.id} is there after the audit" for each in found.deleted if each.id in after]
    return Check("of a deleted output nothing is left in the store", len(found.deleted), violations)


def _urls_are_forgotten(found: Findings) -> Check:
    over = {each.job_id: each for each in found.kept.values() if each.is_last}
    violations = [f"{job_id}: its result has a URL in the database" for job_id, each in over.items() if each.has_urls]
    for job_id in over:
        view = found.views.get(job_id)
        images = [] if view is None else [*view["result"]["images"], *view["outputs"]]
        if not images or any(image["url"] is not None for image in images):
            violations.append(f"{job_id} shows {[image['url'] for image in images]}")
    return Check("a job of which nothing is left has no URL", len(over), violations)


def _only_what_fal_lost_is_lost(found: Findings) -> Check:
    violations = [
        f"{each.id} is said to be lost: {each.prompt}"
        for each in found.deleted
        if each.deleted_because == LOST and GONE not in each.prompt
    ]
    return Check("nothing is said to be lost that fal has", len(found.kept), violations)


def _nothing_strange(found: Findings) -> Check:
    violations = []
    for file in found.before:
        part = PART.fullmatch(file.name)
        if (part["output"] if part else file.name) not in found.kept:
            violations.append(str(file))
    return Check("the store has nothing but outputs and writes that were not finished", len(found.before), violations)


def _audit_leaves_what_rows_want(found: Findings) -> Check:
    live = {each.id for each in found.live}
    violations = [f"{file} is of no live row" for file in found.after if file.name not in live]
    expected = [len(live) + found.inputs, 0, 0, 0, len(live) + found.inputs, 0]
    if found.audit.code or found.audit.totals != expected:
        violations.append(f"media verify ended with {found.audit.code}: {found.audit.text}")
    return Check("after the audit the store is as the rows say, and nothing more", len(found.after), violations)


def _downloads_are_right(found: Findings) -> Check:
    """A file of another output, or a wrong part of the right one, has another digest."""
    violations = [str(each) for each in found.downloads if not _is_right(found, each)]
    return Check("a download is whole and right, 503, or 410 once it is deleted", len(found.downloads), violations)


def _is_right(found: Findings, each: Download) -> bool:
    kept = found.kept.get(each.output)
    if kept is None or each.status not in (200, 206):
        return kept is not None and (
            (each.status == 503 and each.may_be_put_off) or (each.status == 410 and kept.is_deleted)
        )
    served = found.served.get(each.output)
    if served is None:
        return False
    if each.status == 200:
        return (each.size_bytes, each.sha256) == (len(served), _digest(served))
    if each.start is None or each.of_bytes != len(served):
        return False
    return each.size_bytes > 0 and each.sha256 == _digest(served[each.start : each.start + each.size_bytes])


def _nothing_after_the_end(found: Findings) -> Check:
    late = [each for each in found.downloads if each.is_after_the_end]
    violations = [str(each) for each in late if each.status in (200, 206)]
    return Check("nobody gets a file after it was said to be deleted", len(late), violations)


def digests_differ(found: Findings) -> Check:
    """Otherwise another output's file would pass for the right one."""
    digests = Counter(_digest(content) for content in found.served.values())
    same = [f"{count} outputs are {digest}" for digest, count in digests.items() if count > 1]
    return Check("no two files of fal are the same", len(found.served), same)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
