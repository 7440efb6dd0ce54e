"""The catalogue as the settings have it, and the way to ask fal what has changed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.domain.models import Catalogue
from app.infrastructure.catalogue.overrides import with_prices
from app.infrastructure.catalogue.reading import read_catalogue
from app.infrastructure.fal.offers import FalOffers
from app.infrastructure.settings import Settings


def load_catalogue(settings: Settings) -> Catalogue:
    """Raises InvalidCatalogue, InvalidPrices."""
    return with_prices(read_catalogue(settings.catalogue_dir), settings.token_prices_json.overrides)


@asynccontextmanager
async def open_offers(settings: Settings) -> AsyncIterator[FalOffers | None]:
    """None without FAL_KEY: fal tells its prices to customers only."""
    if settings.fal_key is None:
        yield None
        return
    key = settings.fal_key.get_secret_value()
    async with FalOffers.open(api_url=settings.fal_api_url, key=key, egress=settings.egress) as offers:
        yield offers
