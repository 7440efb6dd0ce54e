import json
from typing import Any

import pytest

from app.application.ports.provider import InProgress, Observation, Rejected, Stopped
from app.domain.errors_of_fal import (
    ERRORS,
    FAULT_OF_PROVIDER,
    INPUT_TOO_LARGE,
    INVALID_INPUT,
    POLICY_VIOLATION,
    PROVIDER_REFUSED,
    TIMED_OUT_AT_PROVIDER,
    UNKNOWN_MODEL,
)
from app.infrastructure.fal.verdicts import Failure, refusal, verdict
from app.infrastructure.fal.wire import Answer

NGINX_PAGE = b"<html><body>502 Bad Gateway, nginx</body></html>"
MARKED = {"x-fal-request-id": "r-1"}


def failure(status: int, body: Any = b"", headers: dict[str, str] | None = None) -> Failure:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = Answer(status, headers or {}, content)
    return Failure.of(answer, answer.document())


def model_error(kind: Any, *loc: Any) -> dict[str, Any]:
    return {"detail": [{"loc": ["body", *loc], "msg": "fal's words", "type": kind, "input": "the prompt"}]}


POLICY = Rejected(POLICY_VIOLATION.code, POLICY_VIOLATION.sentence())
TIMED_OUT = Rejected("provider_timeout", TIMED_OUT_AT_PROVIDER.sentence())
FAULT = Rejected("provider_error", FAULT_OF_PROVIDER.sentence())
NO_MODEL = Rejected("provider_error", UNKNOWN_MODEL.sentence())
INPUT = Rejected("invalid_input", INVALID_INPUT.sentence())


def of_type(error_type: str, parameter: str | None = None) -> Rejected:
    return Rejected(ERRORS[error_type].code, ERRORS[error_type].sentence(parameter))


VERDICTS: dict[str, tuple[Failure, Observation]] = {
    "too early": (failure(400, {"detail": "Request is still in progress"}), InProgress()),
    "too early in other words": (failure(400, {"detail": "request in progress"}, MARKED), InProgress()),
    "cancelled": (failure(499, {"detail": "Request cancelled by the client."}), Stopped()),
    "cancelled in other words": (failure(499, {"detail": "stopped"}, MARKED), Stopped()),
    "cancelled with another code": (failure(400, {"detail": "x", "error_type": "client_cancelled"}), Stopped()),
    "cancelled in the header": (failure(503, {"detail": "x"}, {"x-fal-error-type": "client_cancelled"}), Stopped()),
    "policy": (failure(422, model_error("content_policy_violation", "prompt")), POLICY),
    "policy with another code": (failure(400, model_error("content_policy_violation", "prompt")), POLICY),
    "parameter": (failure(422, model_error("less_than_equal", "num_images")), of_type("less_than_equal", "num_images")),
    "part of a parameter": (
        failure(422, model_error("missing", "image_size", "width")),
        of_type("missing", "image_size/width"),
    ),
    "item of a parameter": (
        failure(422, model_error("image_load_error", "image_urls", 0)),
        of_type("image_load_error", "image_urls/0"),
    ),
    "input with 400": (
        failure(400, model_error("image_load_error", "image_url")),
        of_type("image_load_error", "image_url"),
    ),
    "unknown parameter": (failure(422, model_error("extra_forbidden", "<script>")), of_type("extra_forbidden")),
    "unknown type": (failure(422, model_error("brand_new_type", "mask")), INPUT),
    "type of another type": (failure(422, model_error({"a": 1}, "mask")), INPUT),
    "place of another type": (
        failure(422, {"detail": [{"loc": "prompt", "type": "missing"}, "x", None]}),
        of_type("missing"),
    ),
    "detail in words": (failure(422, {"detail": "the prompt is bad"}, MARKED), INPUT),
    "detail of another type": (failure(422, {"detail": {"prompt": "bad"}}, MARKED), INPUT),
    "no media": (
        failure(422, model_error("no_media_generated", "prompt")),
        of_type("no_media_generated"),
    ),
    "timeout": (failure(504, {"detail": "Request timed out", "error_type": "request_timeout"}), TIMED_OUT),
    "startup timeout": (failure(503, {"detail": "x", "error_type": "startup_timeout"}), of_type("startup_timeout")),
    "timeout of the model": (failure(500, model_error("generation_timeout")), of_type("generation_timeout")),
    "no runner": (
        failure(503, {"detail": "x", "error_type": "runner_scheduling_failure"}),
        of_type("runner_scheduling_failure"),
    ),
    "runner gone": (
        failure(502, {"detail": "x"}, {"x-fal-error-type": "runner_incomplete_response"}),
        of_type("runner_incomplete_response"),
    ),
    "crash": (failure(500, {"detail": "Internal Server Error"}, MARKED), FAULT),
    "downstream with 400": (failure(400, model_error("downstream_service_error")), of_type("downstream_service_error")),
    "downstream with 422": (
        failure(422, model_error("downstream_service_unavailable")),
        of_type("downstream_service_unavailable"),
    ),
    "bad request": (failure(400, {"detail": "x", "error_type": "bad_request"}), of_type("bad_request")),
    "teapot": (failure(418, {"detail": "short and stout"}, MARKED), FAULT),
    "gone": (failure(410, {"detail": "Gone"}, MARKED), FAULT),
    "path": (failure(404, {"detail": "Path /x not found"}), NO_MODEL),
    "404 of the model": (
        failure(404, model_error("file_download_error", "image_url")),
        of_type("file_download_error", "image_url"),
    ),
}


@pytest.mark.parametrize(("given", "expected"), VERDICTS.values(), ids=VERDICTS.keys())
def test_takes_fals_own_failure_as_its_verdict(given: Failure, expected: Observation) -> None:
    assert verdict(given) == expected


NO_VERDICTS = {
    **{f"{code} of the ingress": failure(code, NGINX_PAGE) for code in (400, 404, 410, 422, 500, 502, 503, 504)},
    **{
        f"{code} of the ingress, with the id of the request": failure(code, NGINX_PAGE, MARKED)
        for code in (400, 404, 410, 422, 499, 500, 502, 503, 504)
    },
    **{f"{code} with a mark and nothing else": failure(code, b"", MARKED) for code in (404, 422, 499, 500, 504)},
    **{
        f"{code} of a proxy that keeps the id of the request: {name}": failure(code, {name: "upstream timeout"}, MARKED)
        for code in (502, 503, 504)
        for name in ("detail", "message", "error")
    },
    **{
        f"{code} in JSON of others, with the id of the request": failure(code, {"message": "no"}, MARKED)
        for code in (400, 404, 410, 422, 499, 500)
    },
    **{f"{code} of a gateway": failure(code, {"detail": "no"}) for code in (400, 404, 410, 418, 422, 499)},
    "a type that is none": failure(504, {"detail": "no", "error_type": "<b>"}),
    "a list without types": failure(504, {"detail": [{"upstream": "timeout"}, "x"]}),
    "499 of nginx": failure(499, NGINX_PAGE),
    "an error type in the header alone": failure(504, NGINX_PAGE, {"x-fal-error-type": "request_timeout"}),
    **{f"{code} from fal": failure(code, {"detail": "no"}, MARKED) for code in (401, 402, 403, 407, 408, 425, 429)},
    **{f"{code} in JSON of others": failure(code, {"message": "no"}) for code in (500, 502, 503)},
    **{f"{code} of a proxy": failure(code, {"detail": "Service Unavailable"}) for code in (500, 502, 503, 504)},
    "list": failure(500, ["detail"]),
    "forgotten": failure(404, {"status": "NOT_FOUND"}),
    "forgotten with a mark": failure(404, {"status": "NOT_FOUND"}, MARKED),
    "404 in other words": failure(404, {"detail": "Not Found"}),
    "accepted": failure(202, {"detail": "no"}, MARKED),
    "redirect": failure(302, b"", MARKED),
}


@pytest.mark.parametrize("given", NO_VERDICTS.values(), ids=NO_VERDICTS.keys())
def test_takes_no_verdict_from_trouble_on_the_way(given: Failure) -> None:
    assert verdict(given) is None


@pytest.mark.parametrize(
    ("error_type", "expected"),
    [
        ("client_cancelled", Stopped()),
        ("request_timeout", TIMED_OUT),
        ("runner_server_error", FAULT),
        ("", None),
    ],
)
def test_believes_the_status_where_the_result_is_gone(error_type: str, expected: Observation | None) -> None:
    assert verdict(failure(404, {"status": "NOT_FOUND"}), error_type) == expected
    assert verdict(failure(502, NGINX_PAGE), error_type) is None


@pytest.mark.parametrize(
    ("given", "code", "reason"),
    [
        (failure(400, {"detail": "x", "error_type": "bad_request"}), "invalid_input", INPUT.reason),
        (failure(422, model_error("missing", "prompt")), "parameter_missing", of_type("missing", "prompt").reason),
        (failure(422, model_error("content_policy_violation", "prompt")), POLICY.code, POLICY.reason),
        (failure(404, {"detail": 'Application "x" not found'}), "model_unavailable", NO_MODEL.reason),
        (failure(413, NGINX_PAGE), "input_too_large", INPUT_TOO_LARGE.sentence()),
        (failure(405, NGINX_PAGE), "provider_refused", PROVIDER_REFUSED.sentence()),
    ],
)
def test_says_why_fal_refused_a_submission(given: Failure, code: str, reason: str) -> None:
    refused = refusal(given)
    assert (refused.code, refused.reason) == (code, reason)
