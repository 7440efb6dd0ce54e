"""Turns what a request brings along or refers to into kept files, and checks them against what the model takes.

All of it happens before the debit. URLs are not looked at: only fal opens them. What a job was asked for is read back
from what its row has of it.
"""

import asyncio
import binascii
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any
from uuid import UUID

from app.application.files import KeepFile
from app.application.ports.files import OwnFiles, OwnOutputs
from app.application.ports.jobs import StoredInput, StoredInputs
from app.domain.catalogue import Catalogue
from app.domain.errors import CommitUnknown, DomainError, InsufficientBalance, Unavailable
from app.domain.file_errors import FileNotTaken, InputNotTaken
from app.domain.files import DataUri, KeptFile, MediaReference, reference_in
from app.domain.given_parameters import given_parameters
from app.domain.jobs import Job, NewJob
from app.domain.media_errors import MediaDeleted, MediaUnavailable
from app.domain.media_limits import MediaFacts
from app.domain.models import Model
from app.domain.outputs import OutputId
from app.domain.parameters import Parameter

# A file that has less time left is kept for longer, so that no job loses its input while it waits or runs.
FOR_A_JOB = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class ResolvedInputs:
    parameters: Mapping[str, Any]
    """With each kept file as the row of a job has it."""
    file_ids: Sequence[UUID] = ()
    made_ids: Sequence[UUID] = ()
    """Those of them that came as data: URIs."""


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where in a request a reference stands."""

    parameter: Parameter
    number: int | None
    reference: MediaReference

    @property
    def field(self) -> str:
        return self.parameter.name if self.number is None else f"{self.parameter.name}/{self.number}"


@dataclass(slots=True)
class _Found:
    files: dict[tuple[str, int | None], KeptFile] = field(default_factory=dict)
    made_ids: list[UUID] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ResolveInputs:
    keep: KeepFile
    own_files: OwnFiles
    own_outputs: OwnOutputs

    def are_in(self, model: Model, parameters: Mapping[str, Any]) -> bool:
        """Whether completed parameters have anything that is kept."""
        return bool(_spots_in(model, parameters))

    @asynccontextmanager
    async def __call__(self, job: NewJob, model: Model, parameters: Mapping[str, Any]) -> AsyncIterator[ResolvedInputs]:
        """For the time in which the job is accepted: files of data: URIs go again if that fails.

        Raises InputNotTaken, InsufficientBalance, and of data: URIs what KeepFile raises.
        """
        spots = _spots_in(model, parameters)
        if self.keep.store is None:
            spots = _without_data(spots)
        found = _Found()
        try:
            await self._find_all(job, spots, found)
            yield ResolvedInputs(
                _replaced(parameters, found.files),
                tuple(dict.fromkeys(file.id for file in found.files.values())),
                tuple(found.made_ids),
            )
        except BaseException as error:
            # An accept whose outcome is not known may have been done: then a file stays for its job, or is over soon.
            if isinstance(error, DomainError) and not isinstance(error, CommitUnknown):
                await self.forget(job.account_id, found.made_ids)
            raise

    async def _find_all(self, job: NewJob, spots: Sequence[_Spot], found: _Found) -> None:
        """What is cheap to refuse first: no data: URI is decoded for a request that fails all the same."""
        account_id = job.account_id
        ids = [spot.reference for spot in spots if isinstance(spot.reference, UUID)]
        known = await self.own_files.of_account(account_id, ids) if ids else {}
        for spot in sorted(spots, key=lambda spot: isinstance(spot.reference, DataUri)):
            match spot.reference:
                case UUID() as file_id:
                    file = await self._own(known.get(file_id), spot)
                case OutputId() as output_id:
                    file = await self._output(account_id, output_id, spot)
                case DataUri(text):
                    if not found.made_ids:
                        await self._check_balance(job)
                    file = await self._kept(job, text, spot)
                    found.made_ids.append(file.id)
            _check(file, spot)
            found.files[spot.parameter.name, spot.number] = file

    async def _output(self, account_id: UUID, output_id: OutputId, spot: _Spot) -> KeptFile:
        try:
            file = await self.own_outputs.as_file(account_id, output_id)
        except (MediaDeleted, MediaUnavailable) as error:
            raise InputNotTaken(spot.field, error.detail) from error
        if file is None:
            raise InputNotTaken(spot.field, "You have no completed job with this output. Read the job for its outputs.")
        return file

    async def _own(self, file: KeptFile | None, spot: _Spot) -> KeptFile:
        if file is None or not file.is_stored:
            raise InputNotTaken(spot.field, "You have no file with this id. POST /files gives one.")
        now = datetime.now(UTC)
        ended_at = file.deleted_at or (file.expires_at if file.expires_at <= now else None)
        if ended_at is not None:
            raise InputNotTaken(spot.field, MediaDeleted(ended_at, file.deleted_because or "").detail)
        self.keep.check_store()
        if file.expires_at < now + FOR_A_JOB:
            await self.own_files.keep_on(file.id)
        return file

    async def _check_balance(self, job: NewJob) -> None:
        """A glance: the debit decides."""
        balance_tokens = await self.own_files.balance_tokens(job.account_id)
        if balance_tokens < job.cost_tokens:
            raise InsufficientBalance(required_tokens=job.cost_tokens, balance_tokens=balance_tokens)

    async def _kept(self, job: NewJob, uri: str, spot: _Spot) -> KeptFile:
        async with self.keep.spool.new() as source:
            await asyncio.to_thread(_decode, uri, source)
            try:
                return await self.keep(job.account_id, source, job_id=job.id)
            except FileNotTaken as error:
                raise InputNotTaken(spot.field, error.detail) from error

    async def forget(self, account_id: UUID, file_ids: Sequence[UUID]) -> None:
        """Made for a job that was not accepted."""
        if file_ids:
            with suppress(Unavailable):
                await self.keep.records.take_back(account_id, file_ids)


@dataclass(frozen=True, slots=True)
class ReadInputs:
    """What jobs were asked for, as their user would ask again."""

    _stored: StoredInputs
    _catalogue: Catalogue

    async def __call__(self, account_id: UUID, page: Sequence[Job]) -> Sequence[Mapping[str, Any] | None]:
        """Of the first jobs of the page, in their order: as many as an answer may have. None: it cannot be told."""
        stored = await self._stored.of_jobs(account_id, [job.id for job in page]) if page else {}
        first = takewhile(lambda job: job.id in stored, page)
        return [self._given(job, stored[job.id]) for job in first]

    def _given(self, job: Job, stored: StoredInput | None) -> Mapping[str, Any] | None:
        if stored is None:
            return None
        model = self._catalogue.get(job.model_id)
        return given_parameters(model, stored.parameters, stored.references) or None


def _spots_in(model: Model, parameters: Mapping[str, Any]) -> Sequence[_Spot]:
    spots = []
    for parameter in model.parameters.values():
        value = parameters.get(parameter.name)
        if parameter.media is None or value is None:
            continue
        numbered = enumerate(value) if isinstance(value, list) else [(None, value)]
        for number, text in numbered:
            reference = reference_in(text)
            if reference is not None:
                spots.append(_Spot(parameter, number, reference))
    return spots


def _without_data(spots: Sequence[_Spot]) -> Sequence[_Spot]:
    """Without a store data: URIs stay in the row as they came. Raises InputNotTaken."""
    for spot in spots:
        assert spot.parameter.media is not None
        if isinstance(spot.reference, DataUri):
            problem = spot.parameter.media.problem_of(MediaFacts(content_type=spot.reference.content_type))
            if problem is not None:
                raise InputNotTaken(spot.field, problem)
    return [spot for spot in spots if not isinstance(spot.reference, DataUri)]


def _check(file: KeptFile, spot: _Spot) -> None:
    assert spot.parameter.media is not None
    facts = MediaFacts(
        content_type=file.content_type,
        size_bytes=file.size_bytes,
        width=file.width,
        height=file.height,
        duration_seconds=file.duration_seconds,
    )
    problem = spot.parameter.media.problem_of(facts)
    if problem is not None:
        raise InputNotTaken(spot.field, problem)


def _replaced(parameters: Mapping[str, Any], files: Mapping[tuple[str, int | None], KeptFile]) -> Mapping[str, Any]:
    def replaced(name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [files[name, place].as_input if (name, place) in files else each for place, each in enumerate(value)]
        return files[name, None].as_input if (name, None) in files else value

    return {name: replaced(name, value) for name, value in parameters.items()}


def _decode(uri: str, path: Path) -> None:
    """Of a data: URI that a field has put right."""
    path.write_bytes(binascii.a2b_base64(uri.partition(",")[2]))
