"""Speaks with fal's queue, as the port `Provider` asks."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from ssl import SSLContext
from typing import Any, Self

import structlog

from app.application.fault_points import reach
from app.application.ports.provider import (
    NotSubmitted,
    Observation,
    ProviderRequest,
    ProviderUnavailable,
    Rejected,
    SubmitOutcomeUnknown,
    Succeeded,
)
from app.domain.given_media import without_media
from app.domain.terms import ResultShape
from app.infrastructure.egress import Egress
from app.infrastructure.fal import verdicts, wire
from app.infrastructure.fal.exchange import USER_AGENT, Exchange, HttpLimits, Unanswered, open_exchange
from app.infrastructure.fal.json_values import NotJson
from app.infrastructure.fal.lifetimes import MEDIA_SECONDS, PREFERENCE_HEADER, expires_after
from app.infrastructure.fal.urls import QueueUrls, checked_key, host_of
from app.infrastructure.fal.verdicts import OPERATOR_STATUSES, Failure
from app.infrastructure.fal.wire import Answer

log = structlog.get_logger(__name__)

OPERATOR_RETRY_SECONDS = 30.0
_OPERATOR_REASONS = {401: "fal refused the key", 403: "fal account is locked"}

_UNITS_PATTERN = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?", re.ASCII)

# After these statuses the request may be in fal's queue. fal documents neither 408 nor 409: a gateway may say 408 after
# it passed the request on, and servers say it on an idle connection just before they close it, where it then looks like
# the answer to the POST that crossed it. 499 tells that somebody stopped waiting, not that nothing ran. To hold the
# tokens until the evidence or the time limit is cheaper than to pay twice.
_UNKNOWN_STATUSES = frozenset({408, 409, 499})

# What an ingress says where it passed nothing on: it has no healthy server for the request, or no way to one. Some say
# 503 after they did pass it on; then fal's event adopts the run, also when the job was posted again. A 502, 504 or 500
# says that something was passed on and the answer was lost or broken. A 503 in fal's own words stays unknown: its types
# are about a run, and a request that fal has given an id to may be in its queue.
_UNQUEUED_BY_INGRESS = frozenset({404, 410, 503})


class FalClient:
    """Callers open one with `FalClient.open`."""

    def __init__(self, exchange: Exchange, urls: QueueUrls, media_seconds: int) -> None:
        self._exchange = exchange
        self._urls = urls
        self._lifetime = {PREFERENCE_HEADER: expires_after(media_seconds)}

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        queue_url: str,
        key: str,
        limits: HttpLimits | None = None,
        ssl_context: SSLContext | None = None,
        user_agent: str = USER_AGENT,
        egress: Egress | None = None,
        media_seconds: int = MEDIA_SECONDS,
    ) -> AsyncIterator[Self]:
        """Open connections that all calls share, and close them at the end.

        fal keeps the outputs of what is submitted for `media_seconds`.
        Raises ValueError if the key or the queue URL cannot be used.
        """
        urls = QueueUrls(queue_url)
        async with open_exchange(
            key=checked_key(key),
            limits=limits or HttpLimits(),
            ssl_context=ssl_context,
            user_agent=user_agent,
            egress=egress,
        ) as exchange:
            yield cls(exchange, urls, media_seconds)

    async def submit(
        self,
        model_id: str,
        parameters: Mapping[str, Any],
        *,
        webhook_url: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ProviderRequest:
        body = wire.arguments(parameters)
        labels = {"X-Fal-Tags": ",".join(f"{name}={value}" for name, value in tags.items())} if tags else {}
        headers = {**labels, **self._lifetime}
        try:
            answer = await self._exchange.post(self._urls.submit(model_id, webhook_url), body, headers)
        except Unanswered as error:
            if error.never_left:
                raise NotSubmitted(str(error), is_unreachable=True) from error
            raise SubmitOutcomeUnknown(str(error)) from error
        if 200 <= answer.status < 300:
            return self._accepted(answer, model_id)
        raise self._not_accepted(answer)

    def input_digest(self, parameters: Mapping[str, Any]) -> bytes:
        return wire.digest(without_media(parameters))

    def request_of(self, model_id: str, request_id: str) -> ProviderRequest:
        return self._urls.rebuild(model_id, request_id)

    async def observe(self, request: ProviderRequest, shape: ResultShape) -> Observation:
        answer = await self._ask("GET", request.status_url)
        document = answer.document() if answer.status in (200, 202) else {}
        progress = wire.progress_in(document)
        if progress is None:
            raise _unavailable(answer, "status")
        if not isinstance(progress, wire.Completed):
            return progress
        return await self._end(request, shape, verdicts.error_type_of(document))

    async def cancel(self, request: ProviderRequest) -> None:
        answer = await self._ask("PUT", request.cancel_url)
        if 200 <= answer.status < 300:
            return
        # fal has no request of this id: it will not run it, or has forgotten how it ended. Another cancel would change
        # nothing, and a job whose cancel never counts as sent could not be given up at its time limit. A page that says
        # 404 is of the ingress, and fal has not heard.
        if answer.status == 404 and Failure.of(answer, answer.document()).has_words_of_fal:
            log.warning("fal_cancel_not_found", fal_request_id=request.id)
            return
        if answer.status == 400 and answer.document().get("status") == "ALREADY_COMPLETED":
            return
        raise _unavailable(answer, "cancel request")

    async def _end(self, request: ProviderRequest, shape: ResultShape, status_error_type: str) -> Observation:
        reach("observe.before_result")
        answer = await self._ask("GET", request.response_url)
        if answer.status == 200:
            try:
                observation: Observation = wire.result_in(answer.body, shape)
            except NotJson as error:
                raise ProviderUnavailable("fal's result is not JSON") from error
            if isinstance(observation, Rejected) and not verdicts.is_result_of_fal(answer, shape):
                raise _unavailable(answer, "result")
            return _noted(request, answer, observation, [])
        failure = Failure.of(answer, answer.document())
        verdict = verdicts.verdict(failure, status_error_type)
        if verdict is None:
            raise _unavailable(answer, "result")
        return _noted(request, answer, verdict, [failure.error_type, *failure.types])

    async def _ask(self, method: str, url: str) -> Answer:
        """Check the stored URL once more before the request: a row that somebody changed must not leak the key."""
        if not self._urls.is_allowed(url):
            log.error("fal_stored_url_refused", host=host_of(url))
            raise ProviderUnavailable("a stored URL of this request is not fal's")
        try:
            answer = await (self._exchange.put(url) if method == "PUT" else self._exchange.get(url))
        except Unanswered as error:
            raise ProviderUnavailable(str(error)) from error
        if answer.status in OPERATOR_STATUSES:
            log.error("fal_key_refused", status_code=answer.status)
        return answer

    def _accepted(self, answer: Answer, model_id: str) -> ProviderRequest:
        document = answer.document()
        request_id = wire.request_id_in(document)
        if request_id is None:
            raise SubmitOutcomeUnknown("fal accepted the request, and its answer cannot be used")
        rebuilt = self._urls.rebuild(model_id, request_id)
        return ProviderRequest(
            id=request_id,
            status_url=self._allowed(document.get("status_url"), rebuilt.status_url),
            response_url=self._allowed(document.get("response_url"), rebuilt.response_url),
            cancel_url=self._allowed(document.get("cancel_url"), rebuilt.cancel_url),
        )

    def _allowed(self, url: object, rebuilt: str) -> str:
        if isinstance(url, str) and self._urls.is_allowed(url):
            return url
        log.warning("fal_url_refused", host=host_of(url))
        return rebuilt

    @staticmethod
    def _not_accepted(answer: Answer) -> Exception:
        status = answer.status
        if status in OPERATOR_STATUSES:
            log.error("fal_key_refused", status_code=status)
            reason = _OPERATOR_REASONS.get(status, f"fal answered {status}")
            return NotSubmitted(reason, OPERATOR_RETRY_SECONDS, is_operators_matter=True)
        if status == 429:
            return NotSubmitted("fal asks to slow down", wire.pause_seconds(answer.headers))
        if status == 425:
            # By RFC 8470 the server did not process the request, and expects another try.
            return NotSubmitted("fal asks to try again", wire.pause_seconds(answer.headers))
        failure = Failure.of(answer, answer.document())
        is_from_fal = failure.has_words_of_fal or (status == 503 and failure.has_header_of_fal)
        if status in _UNQUEUED_BY_INGRESS and not is_from_fal:
            return NotSubmitted(f"the ingress in front of fal answered {status}", wire.pause_seconds(answer.headers))
        if status < 400 or status >= 500 or status in _UNKNOWN_STATUSES:
            return SubmitOutcomeUnknown(f"fal answered {status}")
        return verdicts.refusal(failure)


def _unavailable(answer: Answer, what: str) -> ProviderUnavailable:
    return ProviderUnavailable(f"fal answered {answer.status} without a usable {what}")


def _noted(request: ProviderRequest, answer: Answer, observation: Observation, types: list[str]) -> Observation:
    """With what fal bills for it; a rejection is logged."""
    if not isinstance(observation, Succeeded | Rejected):
        return observation
    units = answer.headers.get("x-fal-billable-units", "")
    if not _UNITS_PATTERN.fullmatch(units):
        units = ""
    if isinstance(observation, Rejected):
        log.warning(
            "fal_rejected",
            fal_request_id=request.id,
            status_code=answer.status,
            code=observation.code,
            types=[word for word in types if word][:5],
            billable_units=units or None,
        )
    return replace(observation, billed_units=Decimal(units)) if units else observation
