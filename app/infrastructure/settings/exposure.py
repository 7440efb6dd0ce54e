"""What the settings say together: who can reach the service, and whether it may start like that."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from app.infrastructure.settings.database import DatabaseSettings
from app.infrastructure.settings.egress import EgressSettings
from app.infrastructure.settings.fal import FalSettings
from app.infrastructure.settings.limits import LimitSettings
from app.infrastructure.settings.media import MediaSettings
from app.infrastructure.settings.money import MoneySettings
from app.infrastructure.settings.secrets import (
    DEVELOPMENT_WEBHOOK_SECRET,
    has_strong_values,
    is_strong,
    secrets_by_field,
)
from app.infrastructure.settings.service import ServiceSettings
from app.infrastructure.settings.values import InProduction, is_elsewhere, is_quoted, unmet_demands

# One account at fal may have a single key, which then serves for both.
_MAY_BE_THE_SAME = {("fal_key", "fal_admin_key")}


# pydantic collects the fields from the last base to the first: this is the order of `.env.example`.
class SettingsTogether(
    EgressSettings, MediaSettings, FalSettings, LimitSettings, MoneySettings, DatabaseSettings, ServiceSettings
):
    @property
    def refusals(self) -> Sequence[str]:
        """Why the service must not start, one sentence each; never a value."""
        if self.is_production:
            unmet = [*unmet_demands(self), *self._shared_secrets(), *self._shared_by_sources()]
            return [f"APP_ENV=production: {'; '.join(unmet)}"] if unmet else []
        return list(self._open_doors())

    @property
    def concerns(self) -> Sequence[str]:
        """What is probably not meant, one sentence each; never a value."""
        return list(self._doubts())

    def _shared_secrets(self) -> Iterator[str]:
        """Whoever gets hold of one of them has the other, too."""
        found: Mapping[str, frozenset[str]] = {
            name: frozenset(values) for name, values in secrets_by_field(self, with_rule=InProduction)
        }
        for one, other in combinations(found, 2):
            if found[one] & found[other] and (one, other) not in _MAY_BE_THE_SAME:
                yield f"{one.upper()} and {other.upper()} must differ"

    def _shared_by_sources(self) -> Iterator[str]:
        """The secret of one source must not open another one."""
        values = [value for secrets in self.secrets_by_source.values() for value in secrets]
        if len(set(values)) < len(values):
            yield "PAYMENT_SOURCES_JSON must have another secret for each source"

    def _open_doors(self) -> Iterator[str]:
        """Development fills in a secret that everybody knows. That is for this machine alone."""
        way_in = self._way_in_from_elsewhere()
        if way_in is None:
            return
        secret = self.payment_webhook_secret
        sources = [value for values in self.secrets_by_source.values() for value in values]
        is_public = DEVELOPMENT_WEBHOOK_SECRET in [*self.webhook_secrets, *sources]
        if is_public or (self.spends_money and not (has_strong_values(secret) and all(map(is_strong, sources)))):
            yield (
                f"{way_in}, so that everybody could top up: set PAYMENT_WEBHOOK_SECRET to a secret of your own "
                "(openssl rand -hex 32) and APP_ENV=production, or keep to this machine with HOST=127.0.0.1"
            )
        if self.spends_money and self.signing_secret is not None and not has_strong_values(self.signing_secret):
            yield (
                f"{way_in}, so that everybody could make up prices: set SIGNING_SECRET to a secret of your own "
                "(openssl rand -hex 32), or leave it out, or keep to this machine with HOST=127.0.0.1"
            )

    def _way_in_from_elsewhere(self) -> str | None:
        if not self.is_for_this_machine_only:
            return f"HOST={self.host} lets other machines in"
        if self.public_url is not None and is_elsewhere(self.public_url) and self.spends_money:
            return "PUBLIC_URL lets other machines in"
        return None

    def _doubts(self) -> Iterator[str]:
        for name, values in secrets_by_field(self):
            if any(map(is_quoted, values)):
                yield f"{name.upper()} begins and ends with quotes, which are part of its value: take them away"
        if self.is_production and self.is_for_this_machine_only:
            yield f"HOST={self.host} lets in nobody but this machine: in a container, set HOST=0.0.0.0"
        if not self.is_production and not self.is_for_this_machine_only and self.auth_secret is None:
            yield "AUTH_SECRET is not set: everybody who reaches this service can get a key for a new user"
