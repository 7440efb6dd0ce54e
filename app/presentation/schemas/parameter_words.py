"""What is said of a parameter wherever it is described."""

from app.domain.parameters import Parameter


def description_of(parameter: Parameter, language: str = "en") -> str:
    """With what is taken of a picture or a sound."""
    description = parameter.description[language]
    return description if parameter.media is None else f"{description} {parameter.media.sentence_in(language)}"
