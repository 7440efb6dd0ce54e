"""Every model of the catalogue from the request to the ledger, with the simulator as fal, which knows fal's schemas.

The two were written apart from each other: what the catalogue spells wrongly, the simulator refuses.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any

import pytest

from app.domain.models import COUNT, SECONDS, Model
from app.domain.pricing import MEGAPIXEL_PIXELS, Unit
from app.infrastructure.catalogue.reading import read_catalogue
from tests.end_to_end.test_api import FINAL, Service, User, running_service

pytestmark = pytest.mark.timeout(300)

TOKENS = 10_000
AT_ONCE = 16
BILLING = {"Authorization": "Key admin:secret"}
CATALOGUE = read_catalogue()
IMAGE_MODELS = [model for model in CATALOGUE if not model.kind.is_video]
SMALL, LARGE = 512, 3000
# What the prompt says, by what then comes of several pictures.
FEWER, MORE, BLANKED, SMALLER, LARGER, FEWER_LARGER = (
    "[partial:1]",
    "[extra:2]",
    "[nsfw:2]",
    f"[sized] [size:{SMALL}x{SMALL}]",
    f"[sized] [size:{LARGE}x{LARGE}]",
    f"[partial:1] [sized] [size:{LARGE}x{LARGE}]",
)
PARTLY = (FEWER, MORE, BLANKED)
SIZED = (SMALLER, LARGER, FEWER_LARGER)


@dataclass(frozen=True)
class Case:
    model: Model
    given: Mapping[str, Any]
    words: str = ""

    @property
    def spoken(self) -> Mapping[str, Any]:
        return {**self.given, "prompt": f"{self.given['prompt']} {self.words}"} if self.words else self.given

    @property
    def parameters(self) -> Mapping[str, Any]:
        return self.model.completed(self.spoken)

    @property
    def asked(self) -> int:
        return int(self.parameters.get(COUNT, 1))


@dataclass(frozen=True)
class Ended:
    case: Case
    user: User
    job: Mapping[str, Any]
    refunded: Mapping[str, int]
    """What its bill says of each line."""


def required_of(model: Model) -> dict[str, Any]:
    return {name: value for name, value in model.example.items() if model.parameters[name].is_required}


def example_of(model: Model) -> Case:
    return Case(model, model.example)


def dearest_of(model: Model, words: str = "") -> Case:
    dearest: Mapping[str, Any] = max(model.combinations(), key=model.tokens)
    return Case(model, {**required_of(model), **dearest}, words)


def several_of(model: Model, words: str) -> Case:
    count = model.parameters.get(COUNT)
    several = {} if count is None else {COUNT: count.maximum or max(map(int, map(str, count.values)))}
    return Case(model, {**model.example, **several}, words)


CASES = {
    **{("example", model.id, model.kind): example_of(model) for model in CATALOGUE},
    **{("dearest", model.id, model.kind): dearest_of(model) for model in CATALOGUE},
    **{
        (words, model.id, model.kind): make(model, words)
        for model in IMAGE_MODELS
        for make, each in ((several_of, PARTLY), (dearest_of, SIZED))
        for words in each
    },
}


@pytest.fixture(scope="module")
def service(postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(postgres_dsn, template_database, tmp_path_factory.mktemp("models")) as running:
        yield running


@pytest.fixture(scope="module")
def ended(service: Service) -> Mapping[tuple[object, ...], Ended]:
    """All of them at once, each by a user of its own."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        users = list(pool.map(lambda _: service.register(TOKENS), CASES))
        job_ids = list(pool.map(start, users, CASES.values()))
        jobs = list(pool.map(lambda user, job_id: user.until(job_id, FINAL), users, job_ids))
    return {
        name: Ended(case, user, job, {line["line"]: line["refunded_tokens"] for line in job["billing"]["lines"]})
        for (name, case), user, job in zip(CASES.items(), users, jobs, strict=True)
    }


def start(user: User, case: Case) -> str:
    kind = case.model.kind
    path = f"/generations/{'videos' if kind.is_video else 'images'}/{kind.value.lower().replace('_', '-')}"
    answer = user.send("POST", path, json={"model": case.model.id, **case.spoken})
    assert answer.status_code == 202, (case.model.id, case.spoken, answer.text)
    return str(answer.json()["job_id"])


def by_name(wanted: Sequence[str]) -> pytest.MarkDecorator:
    chosen = [name for name in CASES if name[0] in wanted]
    return pytest.mark.parametrize("name", chosen, ids=[" ".join(map(str, name)) for name in chosen])


@by_name(["example", "dearest"])
def test_is_delivered_as_asked_and_charged_as_priced(
    ended: Mapping[tuple[object, ...], Ended], name: tuple[object, ...]
) -> None:
    end = ended[name]
    job, model, parameters = end.job, end.case.model, end.case.parameters

    assert (job["status"], job["error_code"], job["error_message"]) == ("COMPLETED", None, None)
    assert (job["type"], job["model_id"]) == (model.kind.value, model.id)
    assert job["cost_tokens"] == model.tokens(parameters) == sum(line["tokens"] for line in job["price"])
    if name[0] == "dearest":
        assert job["cost_tokens"] == model.to_tokens
    check_books(end, refunded_tokens=0)
    if model.kind.is_video:
        (shown,) = job["result"].keys() & {"images", "video"}
        film = job["result"]["video"]
        assert (shown, film["content_type"], film["url"][-4:]) == ("video", "video/mp4", ".mp4")
        assert film.get("duration", parameters.get(SECONDS)) == parameters.get(SECONDS)
    else:
        pictures = job["result"]["images"]
        assert [picture["content_type"] for picture in pictures] == ["image/png"] * end.case.asked
        assert all(picture["url"].endswith(".png") for picture in pictures)


@by_name([*PARTLY, *SIZED])
def test_what_came_is_charged_and_the_rest_goes_back_by_line(
    ended: Mapping[tuple[object, ...], Ended], name: tuple[object, ...]
) -> None:
    end = ended[name]
    asked, flags = end.case.asked, end.case.model.shape.flags
    came = {FEWER: 1, FEWER_LARGER: 1, MORE: asked + 2}.get(end.case.words, asked)
    are_blanked = end.case.words == BLANKED and asked > 1 and flags is not None

    assert end.job["status"] == "COMPLETED", end.job
    assert len(end.job["result"]["images"]) == came
    assert end.refunded == refunds_reckoned(end, min(came, asked) - are_blanked)
    check_books(end, refunded_tokens=sum(end.refunded.values()))


def refunds_reckoned(end: Ended, delivered: int) -> Mapping[str, int]:
    """By line, with each line's own numbers as the job shows them, past the code that settles."""
    first = end.job["result"]["images"][0]
    megapixels = ceil(first["width"] * first["height"] / MEGAPIXEL_PIXELS) if first.get("width") else None
    charged_megapixels = end.case.model.quantities(end.case.parameters).megapixels[0]
    after = {rule.line: rule.after for rule in end.case.model.prices}

    def quantity(line: Mapping[str, Any]) -> int:
        free = after[line["line"]]
        if line["unit"] == Unit.MEGAPIXEL:
            size = charged_megapixels if megapixels is None else min(megapixels, charged_megapixels)
            return delivered * max(0, size - free)
        return int(line["quantity"]) if line["unit"] == Unit.RUN else max(0, delivered - free)

    return {
        line["line"]: line["tokens"] - ceil(line["unit_tokens"] * Fraction(line["factor"]) * quantity(line))
        for line in end.job["price"]
    }


def check_books(end: Ended, refunded_tokens: int) -> None:
    cost = end.job["cost_tokens"]
    assert (end.job["billing"]["charged_tokens"], end.job["billing"]["refunded_tokens"]) == (
        cost - refunded_tokens,
        refunded_tokens,
    )
    refund = [f"REFUND {refunded_tokens}"] if refunded_tokens else []
    assert end.user.ledger() == [f"CREDIT {TOKENS}", f"DEBIT {cost}", *refund]
    assert end.user.balance() == TOKENS - cost + refunded_tokens


# As a person would reckon them from the price lists; the largest size of FLUX is 2, of FLUX.2 4 megapixels.
@pytest.mark.parametrize(
    ("words", "model_id", "cost", "refunded"),
    [
        (FEWER, "fal-ai/wan-25-preview/text-to-image", 20, {"images": 15}),
        (BLANKED, "fal-ai/wan-25-preview/text-to-image", 20, {"images": 5}),
        (MORE, "fal-ai/wan-25-preview/text-to-image", 20, {"images": 0}),
        (FEWER, "fal-ai/nano-banana-2", 66, {"images": 66 - 17}),
        (FEWER, "fal-ai/flux-2/edit", 28, {"images": 6, "inputs": 15}),
        (BLANKED, "fal-ai/flux-2/edit", 28, {"images": 2, "inputs": 5}),
        (FEWER, "bytedance/seedream/v5/pro/edit", 66, {"images": 45, "further_inputs": 10}),
        (BLANKED, "fal-ai/flux-pro/v1.1", 24, {"images": 0}),
        (SMALLER, "fal-ai/flux/schnell", 8, {"images": 4}),
        (SMALLER, "fal-ai/flux-2", 32, {"images": 24}),
        (SMALLER, "fal-ai/flux-2-pro", 10, {"first_megapixel": 0, "further_megapixels": 6}),
        (SMALLER, "fal-ai/flux-2/edit", 52, {"images": 24, "inputs": 0}),
        (LARGER, "fal-ai/flux-2/edit", 52, {"images": 0, "inputs": 0}),
        (SMALLER, "fal-ai/nano-banana-pro", 168, {"images": 0, "web_search": 0}),
        (FEWER_LARGER, "fal-ai/flux-2", 32, {"images": 24}),
    ],
)
def test_the_refunds_of_some_models(
    ended: Mapping[tuple[object, ...], Ended], words: str, model_id: str, cost: int, refunded: Mapping[str, int]
) -> None:
    (end,) = (each for name, each in ended.items() if name[:2] == (words, model_id))

    assert (end.job["cost_tokens"], end.refunded) == (cost, refunded)


def test_fal_is_sent_each_once_in_its_own_spelling_and_bills_no_more_than_is_reckoned(
    service: Service, ended: Mapping[tuple[object, ...], Ended]
) -> None:
    requests = service.fal.get("/_sim/requests", params={"limit": 1000}).raise_for_status().json()["requests"]
    sent = {request["request_id"]: request for request in requests}
    bills = bills_of(service)

    assert len(requests) == len(ended)
    for name, end in ended.items():
        request, model, parameters = sent[end.job["fal_request_id"]], end.case.model, end.case.parameters
        assert request["input"] == model.fal_input(parameters), name
        reckoned = sum(cost.usd_for(parameters, model.quantities(parameters)) for cost in model.costs)
        if end.case.words not in (MORE, LARGER, FEWER_LARGER):
            assert bills[end.job["fal_request_id"]] <= float(reckoned) + 1e-6, name


def bills_of(service: Service) -> Mapping[str, float]:
    found: dict[str, float] = {}
    cursor: dict[str, str] = {}
    while True:
        answer = service.fal.get("/v1/models/billing-events", params={"limit": 1000, **cursor}, headers=BILLING)
        page = answer.raise_for_status().json()
        found |= {event["request_id"]: event["cost_total"] for event in page["billing_events"]}
        if not page.get("next_cursor"):
            return found
        cursor = {"cursor": page["next_cursor"]}
