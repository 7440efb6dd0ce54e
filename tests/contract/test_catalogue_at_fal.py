"""Whatever the catalogue lets a caller ask for, the API takes, and the simulator by fal's schemas, as it is spelt."""

from random import Random

import pytest
from pydantic import BaseModel

from app.domain.models import Model
from app.presentation.schemas.generations import GenerationBodies
from simulator.listed import LISTED
from simulator.models import ENDPOINTS
from tests.property.parameter_sets import CATALOGUE, parameter_set

SETS_EACH = 100


@pytest.mark.parametrize("model", CATALOGUE.models, ids=[f"{model.id} {model.kind}" for model in CATALOGUE])
def test_every_value_is_taken_here_and_at_fal(model: Model) -> None:
    bodies = GenerationBodies.of(CATALOGUE, model.kind)
    numbers = Random(model.id)

    for _ in range(SETS_EACH):
        asked = parameter_set(numbers, model)
        body = bodies.model_validate({"model": model.id, **asked.given}, {"allow_private_media_urls": False})
        assert (body.wish().model, body.wish().completed()) == (model, asked.completed)
        sent = model.fal_input(asked.completed)
        assert sent.keys() <= arguments_at_fal(model, sent).model_fields.keys(), "fal ignores what it does not know"
        checked = model.fal_input(asked.completed, is_checked=True)
        assert checked.keys() <= arguments_at_fal(model, checked).model_fields.keys()


def arguments_at_fal(model: Model, sent: object) -> type[BaseModel]:
    """Raises ValidationError or Refused for what fal would not take."""
    if model.id in LISTED:
        return type(LISTED[model.id].validated(sent))
    return type(ENDPOINTS[model.id].arguments.model_validate(sent))
