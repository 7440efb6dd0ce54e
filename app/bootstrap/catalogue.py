"""The catalogue as the settings have it, and the way to ask fal what has changed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.domain.catalogue import Catalogue
from app.domain.errors import InvalidCatalogue, InvalidPrices
from app.infrastructure.catalogue.overrides import with_prices
from app.infrastructure.catalogue.reading import read_catalogue
from app.infrastructure.fal.offers import FalOffers
from app.infrastructure.settings import Settings, SettingsError


def load_catalogue(settings: Settings) -> Catalogue:
    """Raises SettingsError with everything that is wrong, a line each."""
    try:
        catalogue = read_catalogue(settings.catalogue_dir)
    except InvalidCatalogue as error:
        raise SettingsError("\n".join(error.problems)) from None
    try:
        return with_prices(catalogue, settings.token_prices_json)
    except InvalidPrices as error:
        raise SettingsError(f"TOKEN_PRICES_JSON: {error}") from None


def safety_concern(settings: Settings, catalogue: Catalogue) -> str | None:
    """What whoever keeps fal's safety checker on should know of what they sell; None: nothing."""
    without = [model for model in catalogue if not model.has_safety_switch]
    if not settings.is_safety_checker_required or not without:
        return None
    return (
        f"SAFETY_CHECKER=on: {len(without)} of {len(catalogue)} models have no switch for it, and fal does as it does "
        "by default; python -m app catalogue list --without-safety-switch names them"
    )


@asynccontextmanager
async def open_offers(settings: Settings) -> AsyncIterator[FalOffers | None]:
    """None without FAL_KEY: fal tells its prices to customers only."""
    if settings.fal_key is None:
        yield None
        return
    key = settings.fal_key.get_secret_value()
    async with FalOffers.open(api_url=settings.fal_api_url, key=key, egress=settings.egress) as offers:
        yield offers
