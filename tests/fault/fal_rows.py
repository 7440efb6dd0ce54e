"""The fault matrix: each row says what fal does and where every job has to end."""

from collections.abc import Iterator
from typing import Any

from app.domain.jobs import JobStatus
from tests.builders import COST_TOKENS
from tests.fault.fal_scripts import (
    RUN_SECONDS,
    advance,
    canceled_at,
    delivered_by,
    event_answered,
    given_up,
    has_a_late_result,
    heard,
    is_not_final,
    looks_change_nothing,
    named_like_another,
    orphans_seen_to,
    over_and_noted,
    pass_the_cancel_grace,
    pass_the_deadline,
    posted,
    posted_a_second_time,
    postponed,
    refused_event,
    sent,
    stays_waiting,
    the_other_is_stopped,
    the_wrong_event_is_refused,
    then,
    to_the_end,
    told_to_stop,
    unknown,
    unknown_until_the_deadline,
)
from tests.fault.fal_world import End, Row, Script

COMPLETED = End(JobStatus.COMPLETED)
CANCELED = End(JobStatus.CANCELED, "canceled")
TIMED_OUT = End(JobStatus.FAILED, "timed_out")
WAITING = End(JobStatus.QUEUED, charged_tokens=COST_TOKENS, posts_seen=None, posts_accepted=0)
RUNNING = f"[slow:{RUN_SECONDS}]"
GOES_ON = f"{RUNNING} [ignore-cancel]"
EDGE_503 = "the ingress in front of fal answered 503"


def failed(code: str, *, accepted: int = 1, late: bool = False) -> End:
    return End(JobStatus.FAILED, code, posts_accepted=accepted, has_late_result=late)


def submit_rows() -> Iterator[Row]:
    def row(name: str, words: str, script: Script, end: End, **more: Any) -> Row:
        return Row("submit", name, words, script, end, **more)

    reasons = {
        401: "fal refused the key",
        402: "fal answered 402",
        403: "fal account is locked",
        407: "fal answered 407",
        425: "fal asks to try again",
        429: "fal asks to slow down",
    }
    for code, reason in reasons.items():
        once = End(JobStatus.COMPLETED, posts_seen=2)
        yield row(f"{code} once, then accepted", f"[submit:{code} x1]", to_the_end, once)
        posts_max = 3 if code in (425, 429) else 1
        waits = stays_waiting(reason, posts_max=posts_max)
        yield row(f"{code} for ever", f"[submit:{code}]", waits, WAITING, pause_seconds=None)
        ran = then(postponed(reason), advance(RUN_SECONDS), heard, to_the_end)
        words = f"[submit:done-{code}] {RUNNING}"
        yield row(f"{code}, and yet it runs", words, ran, COMPLETED, with_webhooks=True)
    twice = End(JobStatus.COMPLETED, posts_seen=2, posts_accepted=2)
    for fault, reason in (("429", reasons[429]), ("503", EDGE_503), ("json-503", EDGE_503)):
        first_runs = f"[submit:done-{fault} x1] {RUNNING}"
        again = then(postponed(reason), advance(RUN_SECONDS / 2), posted_a_second_time)
        first_ends = advance(RUN_SECONDS / 2 + 1)
        yield row(
            f"{fault}, and yet it runs; posted again before its event comes",
            first_runs,
            then(again, first_ends, heard, event_answered(200), delivered_by(1), the_other_is_stopped(2)),
            twice,
            with_webhooks=True,
        )
        yield row(
            f"{fault}, and yet it runs; posted again before its event comes, which has no result in it",
            f"{first_runs} [webhook:null]",
            then(
                again,
                first_ends,
                event_answered(200),
                is_not_final,
                orphans_seen_to,
                delivered_by(1),
                the_other_is_stopped(2),
            ),
            twice,
            with_webhooks=True,
        )
        yield row(
            f"{fault}, and yet it runs; the second run is followed to its end, and the first one's event comes late",
            f"{first_runs} [webhook:delay:{2 * RUN_SECONDS}]",
            then(
                again,
                advance(RUN_SECONDS + 1),
                to_the_end,
                delivered_by(2),
                advance(2 * RUN_SECONDS),
                over_and_noted(1),
            ),
            twice,
            with_webhooks=True,
        )
    for fault in ("503", "text-503", "json-503", "empty-503", "page-404", "page-410"):
        once = End(JobStatus.COMPLETED, posts_seen=2)
        yield row(f"{fault} of the ingress once, then accepted", f"[submit:{fault} x1]", to_the_end, once)
        ran = then(
            postponed(f"the ingress in front of fal answered {fault[-3:]}"), advance(RUN_SECONDS), heard, to_the_end
        )
        words = f"[submit:done-{fault}] {RUNNING}"
        yield row(f"{fault} of the ingress, and yet it runs", words, ran, COMPLETED, with_webhooks=True)
    yield row(
        "503 of the ingress for ever",
        "[submit:503]",
        # As many as of a 429, the last of the codes above.
        stays_waiting(EDGE_503, posts_max=posts_max),
        WAITING,
        pause_seconds=None,
    )
    yield row("429 three times", "[submit:429 x3]", to_the_end, End(JobStatus.COMPLETED, posts_seen=4))
    for code, error_code in {
        400: "invalid_input",
        404: "model_unavailable",
        405: "provider_refused",
        413: "input_too_large",
        422: "content_policy_violation",
    }.items():
        yield row(f"{code}", f"[submit:{code}]", to_the_end, failed(error_code, accepted=0))
    yield row(
        "422, and yet it runs",
        f"[submit:done-422] {RUNNING}",
        then(to_the_end, advance(RUN_SECONDS), has_a_late_result, to_the_end),
        failed("content_policy_violation", late=True),
        with_webhooks=True,
    )
    own_503 = ("fal-503", "marked-page-503", "marked-json-503", "marked-empty-503")
    for fault in ("500", "page-500", "502", "504", "json-504", "fal-502", *own_503, "fal-504", "408", "409", "499"):
        not_queued = failed("submit_unknown", accepted=0)
        yield row(f"{fault}, not queued", f"[submit:{fault}]", unknown_until_the_deadline, not_queued)
    spoilt = ("drop", "hang", "slow", "cut", "truncated", "not-json", "without:request_id", "large:20", "redirect")
    done = tuple(
        f"done-{form}" for form in ("500", "page-500", "502", "fal-503", "marked-page-503", "504", "408", "409", "499")
    )
    for fault in spoilt + done:
        lost = failed("submit_unknown")
        yield row(f"{fault}, without webhooks", f"[submit:{fault}]", unknown_until_the_deadline, lost)
        adopted = then(posted, heard, to_the_end)
        yield row(f"{fault}, adopted", f"[submit:{fault}]", adopted, COMPLETED, with_webhooks=True)
    yield row("foreign URLs", "[submit:foreign-urls]", to_the_end, COMPLETED)
    for name in ("status_url", "response_url", "cancel_url", "queue_position", "status"):
        yield row(f"without {name}", f"[submit:without:{name}]", to_the_end, COMPLETED)
    yield row(
        "id of another job",
        "[submit:other-id]",
        then(named_like_another, pass_the_deadline),
        failed("submit_unknown"),
    )
    yield row(
        "id of another job, adopted",
        "[submit:other-id] [webhook:delay:1200]",
        then(named_like_another, is_not_final, advance(2 * RUN_SECONDS), heard),
        COMPLETED,
        with_webhooks=True,
    )
    yield row(
        "unknown, and its result comes after the refund",
        f"[submit:drop] {RUNNING}",
        then(unknown_until_the_deadline, advance(RUN_SECONDS), has_a_late_result, to_the_end),
        failed("submit_unknown", late=True),
        with_webhooks=True,
    )


def status_rows() -> Iterator[Row]:
    def row(name: str, words: str, script: Script, end: End, **more: Any) -> Row:
        return Row("status", name, words, script, end, **more)

    yield row(
        "404 for the first 10 seconds",
        "[status:404 10s]",
        then(sent, looks_change_nothing, advance(11), to_the_end),
        COMPLETED,
    )
    for fault in ("401", "403", "404", "429", "500", "page-500", "503", "504", "fal-503", "unknown", "drop"):
        yield row(f"{fault} for 30 looks", f"[status:{fault} x30]", to_the_end, COMPLETED)
    for fault in ("marked-page-504", "marked-json-504", "json-500", "page-404", "page-499", "empty-503"):
        yield row(f"{fault} for 3 looks", f"[status:{fault} x3]", to_the_end, COMPLETED)
    broken = ("lower-case", "without:status", "not-json", "truncated", "cut", "large:20", "redirect", "hang", "slow")
    for fault in broken:
        yield row(f"{fault} for 3 looks", f"[status:{fault} x3]", to_the_end, COMPLETED)
    for fault in ("401", "404", "503", "unknown", "redirect", "large:20"):
        yield row(f"{fault} for ever", f"[status:{fault}]", given_up(answered=False), TIMED_OUT)
    yield row(
        "flapping from the run to the queue",
        f"{RUNNING} [status:flapping]",
        then(sent, looks_change_nothing, advance(RUN_SECONDS), to_the_end),
        COMPLETED,
    )
    yield row(
        "200 while it runs",
        f"{RUNNING} [status:200]",
        then(sent, looks_change_nothing, advance(RUN_SECONDS), to_the_end),
        COMPLETED,
    )
    yield row("202 at the end", "[status:202]", to_the_end, COMPLETED)
    yield row(
        "never starts, and stops at the time limit",
        "[stuck]",
        then(sent, looks_change_nothing, pass_the_deadline, told_to_stop, to_the_end),
        TIMED_OUT,
    )
    yield row(
        "never ends, and stops at the time limit",
        "[slow:999999]",
        then(sent, looks_change_nothing, pass_the_deadline, told_to_stop, to_the_end),
        TIMED_OUT,
    )
    for word in ("[stuck]", "[slow:999999]"):
        yield row(
            f"{word} ends never, not even when told to stop",
            f"{word} [ignore-cancel]",
            then(given_up(answered=True), told_to_stop),
            TIMED_OUT,
        )
    yield row(
        "ends within the grace after the time limit",
        GOES_ON,
        then(sent, looks_change_nothing, pass_the_deadline, is_not_final, advance(RUN_SECONDS), to_the_end),
        COMPLETED,
    )
    yield row("COMPLETED without an error, and the result fails", "[no-error-field]", to_the_end, POLICY)
    yield row("COMPLETED without an error, 500", "[no-error-field:500]", to_the_end, failed("provider_error"))


POLICY = failed("content_policy_violation")


def result_rows() -> Iterator[Row]:
    def row(name: str, words: str, script: Script, end: End, **more: Any) -> Row:
        return Row("result", name, words, script, end, **more)

    for word, code in {
        "fail": "content_policy_violation",
        "fail:500": "provider_error",
        "fail:502": "provider_error",
        "fail:503": "provider_error",
        "fail:504": "provider_timeout",
        "fail:startup_timeout": "provider_timeout",
        "fail:generation_timeout": "provider_timeout",
        "fail:downstream_service_error": "provider_error",
        "fail:internal_error": "provider_error",
        "fail:no_media_generated": "no_media_generated",
        "fail:image_load_error": "image_unreadable",
        "fail:file_too_large": "file_too_large",
        "fail:one_of": "not_one_of",
        "fail:runner_disconnected": "provider_error",
        "result:422": "content_policy_violation",
        "result:500": "provider_error",
        "result:fal-503": "provider_error",
        "result:shape": "result_invalid",
        "result:large": "result_invalid",
        "result:large:20": "result_invalid",
        "result:without:images": "result_invalid",
    }.items():
        yield row(word, f"[{word}]", to_the_end, failed(code))
    for word in ("fail:client_cancelled", "fail:client_disconnected", "result:499"):
        yield row(f"{word}", f"[{word}]", to_the_end, CANCELED)
    for fault in ("400", "401", "403", "404", "429", "page-500", "502", "503", "504", "drop"):
        yield row(f"{fault} for 30 looks", f"[result:{fault} x30]", to_the_end, COMPLETED)
    for fault in ("not-json", "truncated", "cut", "redirect", "hang", "slow"):
        yield row(f"{fault} for 3 looks", f"[result:{fault} x3]", to_the_end, COMPLETED)
    of_the_ingress = (
        *("page-400", "page-404", "page-410", "page-422", "page-499", "json-404", "json-499", "json-422"),
        *("marked-page-404", "marked-page-422", "marked-page-499", "marked-page-500", "marked-page-504"),
        *("marked-json-502", "marked-json-504", "marked-text-503", "marked-empty-504", "json-500", "text-502"),
    )
    for fault in of_the_ingress:
        yield row(f"{fault} for 3 looks", f"[result:{fault} x3]", to_the_end, COMPLETED)
    for fault in ("401", "404", "429", "page-500", "503", "marked-page-504", "page-499", "not-json", "redirect"):
        yield row(f"{fault} for ever", f"[result:{fault}]", given_up(answered=False), TIMED_OUT)
    yield row("400 for ever", "[result:400]", given_up(answered=True), TIMED_OUT)
    yield row(
        "expired before anybody looked",
        "",
        then(sent, advance(3601), given_up(answered=False)),
        TIMED_OUT,
    )
    yield row(
        "expired, and the status names the failure",
        "[fail:500]",
        then(sent, advance(3601), to_the_end),
        failed("provider_error"),
    )
    for fault in ("nan", "nul", "surrogate", "dead-media"):
        yield row(fault, f"[result:{fault}]", to_the_end, COMPLETED)
    yield row("fewer images", "[partial:2]", to_the_end, charged(2), outputs=4)
    yield row("one image withheld", "[nsfw:1]", to_the_end, charged(1), outputs=2)
    yield row("no image at all", "[partial:0]", to_the_end, failed("no_media_generated"), outputs=2)
    yield row("every image withheld", "[nsfw]", to_the_end, failed("no_output"), outputs=2)


def charged(outputs: int) -> End:
    return End(JobStatus.COMPLETED, charged_tokens=outputs * COST_TOKENS)


def cancel_rows() -> Iterator[Row]:
    def row(name: str, words: str, script: Script, end: End, **more: Any) -> Row:
        return Row("cancel", name, words, script, end, **more)

    queued = then(canceled_at("IN_QUEUE"), to_the_end)
    running = then(canceled_at("IN_PROGRESS"), to_the_end)
    goes_on = then(canceled_at("IN_PROGRESS"), is_not_final, advance(RUN_SECONDS), to_the_end)
    for code in ("202", "200"):
        word = "" if code == "202" else " [cancel:200]"
        yield row(f"{code} in the queue, honoured", f"[stuck]{word}", queued, CANCELED)
        yield row(f"{code} in the run, honoured", f"{RUNNING}{word}", running, CANCELED)
        yield row(f"{code} in the run, ignored", f"{GOES_ON}{word}", goes_on, COMPLETED)
        yield row(
            f"{code} in the queue, ignored",
            f"[stuck] [ignore-cancel]{word}",
            then(canceled_at("IN_QUEUE"), is_not_final, pass_the_cancel_grace),
            CANCELED,
        )
    yield row("ALREADY_COMPLETED, and so it is", "", then(canceled_at("SUBMITTED"), to_the_end), COMPLETED)
    # fal has answered: it is not asked again.
    told = then(canceled_at("IN_PROGRESS"), told_to_stop, is_not_final, advance(RUN_SECONDS), to_the_end)
    yield row("ALREADY_COMPLETED, and it still runs", f"{RUNNING} [cancel:400]", told, COMPLETED)
    yield row("404, and it runs", f"{RUNNING} [cancel:404]", told, COMPLETED)
    for fault in ("401", "403", "429", "500", "503", "fal-503", "page-404", "marked-page-404", "json-404", "redirect"):
        # A redirect comes after the deed.
        first = f"{fault} x2" if fault != "redirect" else fault
        yield row(f"{first}, then honoured", f"{RUNNING} [cancel:{first}]", running, CANCELED)
    for fault in ("hang", "slow", "drop", "cut", "truncated", "not-json", "large:20", "done-503", "done-404"):
        yield row(f"{fault}, honoured", f"{RUNNING} [cancel:{fault}]", running, CANCELED)
        yield row(f"{fault}, ignored", f"{GOES_ON} [cancel:{fault}]", goes_on, COMPLETED)
    yield row(
        "never heard, and the time limit passes",
        f"{RUNNING} [cancel:503]",
        then(canceled_at("IN_PROGRESS"), given_up(answered=True)),
        CANCELED,
    )
    yield row(
        "asked for while it is not known whether fal got the job",
        "[submit:502]",
        then(unknown, canceled_at("SUBMITTING"), is_not_final, pass_the_deadline),
        End(JobStatus.CANCELED, "canceled", posts_accepted=0),
    )
    yield row("asked for after the end", "", then(to_the_end, canceled_at("COMPLETED")), COMPLETED)


def webhook_rows() -> Iterator[Row]:
    def row(name: str, words: str, script: Script, end: End) -> Row:
        return Row("webhook", name, words, script, end, with_webhooks=True)

    by_event = then(posted, heard, to_the_end)
    for word in ("early", "duplicate:10", "duplicate:50", "delay:0.2"):
        yield row(word, f"[webhook:{word}]", by_event, COMPLETED)
    for word in ("nan", "nul", "surrogate"):
        yield row(f"payload with {word}", f"[webhook:{word}]", by_event, COMPLETED)
    yield row("payload of another shape", "[webhook:shape]", by_event, failed("result_invalid"))
    for word in ("stale", "forged", "unknown-key", "foreign-user", "truncated", "not-json"):
        yield row(word, f"[webhook:{word}]", refused_event, COMPLETED)
    yield row(
        "too large",
        "[webhook:large:2]",
        then(posted, event_answered(413), is_not_final, to_the_end),
        COMPLETED,
    )
    yield row(
        "names a request that does not exist",
        "[webhook:wrong-request] [webhook:delay:0.2]",
        then(posted, to_the_end),
        COMPLETED,
    )
    yield row("never", "[webhook:never]", then(posted, to_the_end), COMPLETED)
    yield row("unknown token", "", then(posted, heard, the_wrong_event_is_refused), COMPLETED)
    asked = then(posted, event_answered(200), is_not_final, to_the_end)
    yield row("payload null", "[webhook:null]", asked, COMPLETED)
    yield row("ERROR", "[fail]", asked, POLICY)
    yield row("ERROR with payload null", "[fail:500] [webhook:null]", asked, failed("provider_error"))
    yield row(
        "after a look has found the end",
        f"[webhook:delay:{RUN_SECONDS}]",
        then(posted, to_the_end, advance(RUN_SECONDS), event_answered(200)),
        COMPLETED,
    )
    late = then(advance(RUN_SECONDS), has_a_late_result, event_answered(200), to_the_end)
    yield row(
        "after the job was given up",
        f"[slow:{RUN_SECONDS}] [ignore-cancel] [webhook:duplicate:10]",
        then(given_up(answered=True), late),
        End(JobStatus.FAILED, "timed_out", has_late_result=True),
    )
    yield row(
        "after the job was canceled without fal's word",
        GOES_ON,
        then(canceled_at("IN_PROGRESS"), given_up(answered=True), late),
        End(JobStatus.CANCELED, "canceled", has_late_result=True),
    )
    yield row(
        "after an ignored cancel",
        GOES_ON,
        then(canceled_at("IN_PROGRESS"), is_not_final, advance(RUN_SECONDS), heard),
        COMPLETED,
    )


ROWS = (*submit_rows(), *status_rows(), *result_rows(), *cancel_rows(), *webhook_rows())
