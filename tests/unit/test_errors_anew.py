"""An error that many callers get is an exception of its own for each."""

from collections.abc import Iterator

import pytest

from app.domain.errors import Unavailable
from app.infrastructure.postgres.faults import anew


def kinds_of(base: type[Unavailable]) -> Iterator[type[Unavailable]]:
    yield base
    for kind in base.__subclasses__():
        yield from kinds_of(kind)


def test_is_the_same_but_for_its_traces() -> None:
    for kind in kinds_of(Unavailable):
        error = kind("The disk is full.")
        error.__cause__ = OSError("full")

        own = anew(error)

        assert own is not error
        assert type(own) is kind
        assert (own.detail, str(own), own.figures, own.__cause__) == (error.detail, str(error), {}, error.__cause__)
        with pytest.raises(kind):
            raise own
        assert error.__traceback__ is None
