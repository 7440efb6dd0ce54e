"""What a job was asked for, as its user would ask again, from fal's input as the row of the job has it.

No bytes and no marks: of media there is a URL, or what names a kept file. null stands for what is there no more.
"""

from collections.abc import Mapping
from typing import Any

from app.domain.files import KeptReference, text_of
from app.domain.given_media import Media
from app.domain.models import Model

_PROMPT = "prompt"


def given_parameters(
    model: Model | None, sent: Mapping[str, Any], references: Mapping[str, KeptReference]
) -> Mapping[str, Any]:
    """With all that was filled in. `model` as it is sold today: of one that is sold no more there is the prompt alone,
    because nobody knows what else in `sent` a user may have said.
    """
    if model is None:
        prompt = sent.get(_PROMPT)
        return {_PROMPT: prompt} if isinstance(prompt, str) else {}
    given = {}
    for name, parameter in model.parameters.items():
        spelled = parameter.fal.name
        value = sent.get(spelled)
        if value is None or spelled in model.fixed:
            continue
        if parameter.media is not None:
            value = _without_bytes(value, references)
        elif isinstance(value, Mapping) and Media.of_mark(value) is not None:
            # A text that looked like a picture.
            value = None
        given[name] = parameter.given_for(value)
    return given


def _without_bytes(value: Any, references: Mapping[str, KeptReference]) -> Any:
    if isinstance(value, list):
        return [_without_bytes(each, references) for each in value]
    if isinstance(value, Mapping):
        reference = references.get(value.get("file_id", ""))
        return None if reference is None else text_of(reference)
    return None if isinstance(value, str) and value[:5].lower() == "data:" else value
