"""What is said of a parameter wherever it is described."""

from app.domain.parameters import Parameter


def description_of(parameter: Parameter) -> str:
    """In English, with what is taken of a picture or a sound."""
    description = parameter.description["en"]
    return description if parameter.media is None else f"{description} {parameter.media.sentence}"
