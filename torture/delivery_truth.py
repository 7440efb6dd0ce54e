"""What webhooks must have brought, by the log and by what the receiver wrote down."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import asyncpg

from torture.delivery_owners import Endpoint
from torture.delivery_receiver import Mood, Receiver
from torture.event_truth import ENDS, OF_JOBS, Told, Truth, reader_checks
from torture.report import Check


@dataclass(frozen=True, slots=True)
class Delivered:
    """One endpoint, and what its owner and the service say of it in the end."""

    endpoint: Endpoint
    exhausted: Collection[int]
    """As `GET .../deliveries` has it."""
    jobs: Collection[str]
    """Those that name it; of an endpoint of jobs alone."""
    said_delivered: Collection[int]
    """By the service."""

    @property
    def name(self) -> str:
        return self.endpoint.hook.name

    @property
    def accepted(self) -> set[Told]:
        return {receipt.told for receipt in self.endpoint.hook.receipts if receipt.is_accepted}

    def is_wanted(self, told: Told) -> bool:
        hook = self.endpoint.hook
        if hook.mood is Mood.OF_JOBS:
            return told.type in ENDS and told.subject in self.jobs
        return told.seq > self.endpoint.created_after and (hook.types is None or told.type in hook.types)

    def wanted(self, truth: Truth) -> list[Told]:
        return [told for told in truth.log.get(self.endpoint.hook.user_id, ()) if self.is_wanted(told)]

    def came_or_was_given_up(self, truth: Truth) -> list[Told]:
        accepted = self.accepted
        given_up = {told for told in self.wanted(truth) if told.seq in self.exhausted}
        return sorted(accepted | given_up)


def delivery_checks(delivered: Sequence[Delivered], receiver: Receiver, truth: Truth) -> list[Check]:
    receipts = sum(len(each.endpoint.hook.receipts) for each in delivered)
    refused = [line for each in delivered for line in each.endpoint.hook.refused]
    jobs = sum(receipt.told.type in OF_JOBS for each in delivered for receipt in each.endpoint.hook.receipts)
    said = sum(len(each.said_delivered) for each in delivered)
    wanted = {each.name: each.wanted(truth) for each in delivered}
    late = [line for each in delivered for line in _late(each, wanted[each.name])]
    return [
        *reader_checks(
            "webhooks",
            ((each.name, each.came_or_was_given_up(truth)) for each in delivered),
            replace(truth, log=wanted),
            at_least_once=True,
        ),
        Check("every signature is right, and each webhook-id is its event's", receipts, refused),
        Check("each webhook is of its own account, and wanted", receipts, _foreign(delivered, wanted, receiver)),
        Check("a job's next webhook comes once those before it were taken", jobs, late),
        Check("what is said to be delivered was taken", said, [line for each in delivered for line in _untaken(each)]),
    ]


def _foreign(delivered: Sequence[Delivered], wanted: Mapping[str, Sequence[Told]], receiver: Receiver) -> list[str]:
    found = list(receiver.strays)
    for each in delivered:
        came = {receipt.told for receipt in each.endpoint.hook.receipts}
        found += [f"{each.name} got {told}" for told in sorted(came.difference(wanted[each.name]))]
    return found


def _late(each: Delivered, wanted: Sequence[Told]) -> list[str]:
    """Each of a job waits for those before it, but for what was given up, and what was replayed later."""
    left_out = each.endpoint.given_up | set(each.exhausted)
    before: dict[int, list[Told]] = {}
    by_job: defaultdict[str, list[Told]] = defaultdict(list)
    for told in wanted:
        is_replayed = any(after < told.seq <= last for after, last in each.endpoint.missed)
        if told.type in OF_JOBS:
            before[told.seq] = list(by_job[told.subject])
            if told.seq not in left_out and not is_replayed:
                by_job[told.subject].append(told)
    late = []
    taken: set[int] = set()
    for told, is_accepted in each.endpoint.hook.receipts:
        late += [
            f"{each.name} got {told}, and not yet {one}" for one in before.pop(told.seq, ()) if one.seq not in taken
        ]
        if is_accepted:
            taken.add(told.seq)
    return late


def _untaken(each: Delivered) -> list[str]:
    taken = {told.seq for told in each.accepted}
    return [f"{each.name} never took {seq}" for seq in sorted(set(each.said_delivered) - taken)]


async def said_delivered(dsn: str) -> Mapping[str, Collection[int]]:
    """By endpoint that is not of jobs, as the service has it. A later replay makes it wait again."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "SELECT endpoint_id::text AS id, array_agg(event_seq) AS seqs FROM deliveries"
            " WHERE state = 'delivered' GROUP BY endpoint_id",
            timeout=300,
        )
    finally:
        await connection.close()
    return {row["id"]: row["seqs"] for row in rows}
