"""The rights that are asked for at the start."""

from app.infrastructure.postgres.rights import NEEDED
from app.infrastructure.postgres.tables import metadata


def test_the_start_asks_for_the_rights_on_every_table() -> None:
    assert metadata.tables.keys() - NEEDED.keys() == set()
