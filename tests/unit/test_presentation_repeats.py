"""A repeat of a request whose answer was lost, by a catalogue that takes it no more."""

import base64
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Any
from unittest import mock

import httpx
import pytest

from app.domain.catalogue import Catalogue
from app.domain.errors import UnknownModel
from app.domain.kinds import GenerationKind
from app.domain.models import SAFETY_CHECKER, Model
from app.domain.parameters import Parameter, ParameterType
from app.presentation.schemas import generation_fields
from app.presentation.schemas.generations import GenerationBodies
from tests.builders import BUILT_IN
from tests.property.parameter_sets import parameter_set
from tests.unit.presentation_stand_ins import World, problem_of

TEXT_TO_IMAGE = "/generations/images/text-to-image"
IMAGE_TO_IMAGE = "/generations/images/image-to-image"
PATHS = {
    GenerationKind.TEXT_TO_IMAGE: TEXT_TO_IMAGE,
    GenerationKind.IMAGE_TO_IMAGE: IMAGE_TO_IMAGE,
    GenerationKind.TEXT_TO_VIDEO: "/generations/videos/text-to-video",
    GenerationKind.IMAGE_TO_VIDEO: "/generations/videos/image-to-video",
}
FLUX, EDIT = "fal-ai/flux/dev", "fal-ai/flux-2/edit"
FOX = {"model": FLUX, "prompt": "a fox", "guidance_scale": 3, "image_size": {"width": 512, "height": 512}}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"x" * 50).decode()
KEY = {"Idempotency-Key": "order 4711"}
FEW = [model for model in BUILT_IN if model.is_default or model.id in (FLUX, EDIT)]

Change = Callable[[Model], Model | None]


def gone(_model: Model) -> None:
    return None


def without(name: str) -> Change:
    return lambda model: replace(model, parameters={one: it for one, it in model.parameters.items() if one != name})


def with_parameter(name: str, **changes: Any) -> Change:
    return lambda model: replace(
        model, parameters={**model.parameters, name: replace(model.parameters[name], **changes)}
    )


def changed(model_id: str, change: Change) -> Catalogue:
    """The model among those of a few others, since each catalogue makes the classes of its bodies."""
    models = [change(model) if model.id == model_id else model for model in FEW]
    return Catalogue([model for model in models if model is not None], BUILT_IN.types)


async def ask(
    world: World, key: Mapping[str, str], body: object, path: str = TEXT_TO_IMAGE, **headers: str
) -> httpx.Response:
    sent = {**key, **KEY, "Content-Type": "application/json", **headers}
    return await world.client().post(path, content=json.dumps(body), headers=sent)


@pytest.mark.parametrize(
    "change",
    [
        gone,
        without("guidance_scale"),
        with_parameter("image_size", size_limits=None),
        with_parameter("guidance_scale", minimum=5, maximum=20),
    ],
    ids=["model removed", "number removed", "sizes in pixels removed", "range narrowed"],
)
async def test_a_repeat_is_answered_with_its_job_whatever_the_catalogue_takes_by_then(change: Change) -> None:
    world = World()
    account, key = await world.a_user(tokens=1000)
    first = await ask(world, key, FOX)
    world.catalogue = changed(FLUX, change)

    repeat = await ask(world, key, FOX)
    dearer = await ask(world, key, FOX | {"quote": 5, "max_cost_tokens": -1})
    other = await ask(world, key, FOX | {"prompt": "a hare"})
    new = await ask(world, key, FOX, **{"Idempotency-Key": "another"})

    assert first.status_code == 202
    for again in (repeat, dearer):
        assert again.status_code == 202, again.text
        assert again.json() == first.json()
        assert again.headers["location"] == first.headers["location"]
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers["x-cost-tokens"] == first.headers["x-cost-tokens"]
    assert (other.status_code, problem_of(other)["code"]) == (422, "idempotency_key_reused")
    assert (new.status_code, problem_of(new)["code"] in {"unknown_model", "invalid_request"}) == (422, True)
    assert len(world.jobs.accepted) == 1
    assert world.accounts.accounts[account.external_user_id].balance_tokens == 1000 - first.json()["cost_tokens"]


@pytest.mark.parametrize(
    "image_url",
    [
        " https://example.com/fox.png ",
        "https://example.com/fü chs.png",
        "https://bücher.example/fox.png",
        f"DATA:image/jpg;base64,{PNG}",
        PNG,
        f"data:image/png;base64,{PNG}",
    ],
    ids=[
        "blanks",
        "no ASCII in the path",
        "no ASCII in the host",
        "another type",
        "without its head",
        "as it should be",
    ],
)
@pytest.mark.parametrize("change", [gone, without("image_urls")], ids=["model removed", "parameter removed"])
async def test_a_repeat_is_known_by_the_media_that_were_put_right(image_url: str, change: Change) -> None:
    world = World()
    _, key = await world.a_user(tokens=1000)
    body = {"model": EDIT, "prompt": "a fox", "image_urls": [image_url], "seed": None}
    first = await ask(world, key, body, IMAGE_TO_IMAGE)
    world.catalogue = changed(EDIT, change)

    repeat = await ask(world, key, body, IMAGE_TO_IMAGE)

    assert (first.status_code, repeat.status_code) == (202, 202), repeat.text
    assert repeat.json() == first.json()


async def test_a_repeat_that_names_no_model_is_known_after_the_default_has_changed() -> None:
    world = World()
    _, key = await world.a_user(tokens=1000)
    body = {"prompt": "a fox", "negative_prompt": "rain"}
    first = await ask(world, key, body)
    world.catalogue = changed(BUILT_IN.default_of(GenerationKind.TEXT_TO_IMAGE).id, gone)
    assert "negative_prompt" not in world.catalogue.default_of(GenerationKind.TEXT_TO_IMAGE).parameters

    repeat = await ask(world, key, body)

    assert (first.status_code, repeat.status_code) == (202, 202), repeat.text
    assert repeat.json() == first.json()


async def test_a_repeat_is_known_after_the_operator_ordered_the_safety_checker() -> None:
    world = World()
    _, key = await world.a_user(tokens=1000)
    model = next(it for it in BUILT_IN.of_kind(GenerationKind.TEXT_TO_IMAGE) if SAFETY_CHECKER in it.parameters)
    body = {"model": model.id, "prompt": "a fox", SAFETY_CHECKER: False}
    first = await ask(world, key, body)
    world.is_safety_checker_required = True

    repeat = await ask(world, key, body)
    other = await ask(world, key, body, **{"Idempotency-Key": "another"})

    assert (first.status_code, repeat.status_code, other.status_code) == (202, 202, 422), repeat.text
    assert repeat.json() == first.json()


def written_differently(numbers: Random, parameter: Parameter, value: Any) -> Any:
    """As other clients would write the same value."""
    if parameter.type is ParameterType.NUMBER and value == int(value):
        return int(value)
    if parameter.type in (ParameterType.IMAGE, ParameterType.AUDIO) and numbers.random() < 0.5:
        return f" {value}\n"
    if parameter.type is ParameterType.IMAGES:
        return [f"{url} " for url in value]
    return value


@pytest.mark.parametrize("model", BUILT_IN.models, ids=lambda model: model.id)
def test_what_a_refused_body_asked_for_is_what_it_asked_for_as_it_was_taken(model: Model) -> None:
    numbers = Random(model.id)
    one = next(other for other in BUILT_IN.of_kind(model.kind) if other is not model)
    now = GenerationBodies.of(BUILT_IN, model.kind)
    later = GenerationBodies.of(Catalogue([replace(one, parameters={})], BUILT_IN.types), model.kind)
    for _ in range(20):
        given = parameter_set(numbers, model).given
        document: dict[str, Any] = {
            "model": model.id,
            "max_cost_tokens": 5,
            "quote": None,
            "webhook_url": numbers.choice([None, "https://bücher.example/хук ", "https://hooks.example.com:8443/a"]),
            **{name: written_differently(numbers, model.parameters[name], value) for name, value in given.items()},
        }
        taken = now.model_validate(document, {"allow_private_media_urls": False}).wish().asked_for()

        for bodies in (now, later):
            asked_for = bodies.asked_for(document)
            assert asked_for is not None
            assert asked_for.fingerprint() == taken.fingerprint()
        with pytest.raises(UnknownModel):
            later.model_validate(document, {})


async def lookups_of(world: World, key: Mapping[str, str], body: object, **headers: str) -> int:
    find = world.jobs.find_by_idempotency_key
    with mock.patch.object(world.jobs, "find_by_idempotency_key", side_effect=find) as counted:
        response = await ask(world, key, body, **headers)
    assert response.status_code == 422, response.text
    problem_of(response)
    return counted.call_count


async def test_a_refused_body_costs_a_look_up_only_with_a_key_and_only_if_it_may_have_been_one() -> None:
    world = World()
    _, key = await world.a_user(tokens=1000)
    junk: list[Any] = [
        [],
        "a fox",
        5,
        {"model": 5},
        {"model": ["a"], "prompt": "a fox"},
        FOX | {"seed": 10**400},
        FOX | {"image_size": {"width": 10**400, "height": 1}},
        FOX | {"image_size": {"width": "x", "height": 1}},
        FOX | {"image_size": {"a": {"b": {}}}},
        FOX | {"image_urls": [["a"]]},
        FOX | {"image_urls": [5]},
    ]

    assert [await lookups_of(world, key, body) for body in junk] == [0] * len(junk)
    assert await lookups_of(world, key, FOX | {"model": "gone", "seed": 2**63, "guidance_scale": 1e400}) == 1
    assert await lookups_of(world, key, FOX | {"model": "gone", "guidance_scale": 2**63}) == 1
    assert await lookups_of(world, key, FOX | {"model": "\ud800", "prompt": "\ud800"}) == 1
    key = {name: value for name, value in key.items() if name != "Idempotency-Key"}
    with mock.patch.dict(KEY, clear=True):
        assert await lookups_of(world, key, FOX | {"model": "gone"}) == 0


async def test_a_large_repeat_is_compared_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    _, key = await world.a_user(tokens=1000)
    large = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"x" * 4_000_000).decode()
    body = {"model": EDIT, "prompt": "a fox", "image_urls": [f"data:image/jpg;base64,{large}"]}
    first = await ask(world, key, body, IMAGE_TO_IMAGE)
    world.catalogue = changed(EDIT, gone)
    threads = set()
    take, dumps = generation_fields.as_taken, json.dumps

    def taken(*arguments: Any) -> Any:
        threads.add(threading.current_thread())
        return take(*arguments)

    def dumped(document: Any, **options: Any) -> str:
        text = dumps(document, **options)
        if len(text) > 1_000_000:
            threads.add(threading.current_thread())
        return text

    content = json.dumps(body)
    monkeypatch.setattr("app.presentation.schemas.generations.as_taken", taken)
    monkeypatch.setattr("app.application.jobs.json.dumps", dumped)
    headers = {**key, **KEY, "Content-Type": "application/json"}
    repeat = await world.client().post(IMAGE_TO_IMAGE, content=content, headers=headers)

    assert (first.status_code, repeat.status_code) == (202, 202), repeat.text
    assert repeat.json() == first.json()
    assert threads
    assert threading.main_thread() not in threads
