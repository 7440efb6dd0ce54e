"""Quotes as signed texts: nothing of them is stored, and nobody else can make or change one."""

import hashlib
import re
from collections.abc import Sequence

from itsdangerous import BadData, URLSafeSerializer

from app.domain import terms
from app.domain.errors import QuoteNotValid
from app.domain.quotes import Quote

QUOTE_LENGTH_MAX = 4096
# What the key is derived for. A text of another form is then one that we have not signed, and is never read.
_PURPOSE = f"quote 1, terms {terms.FORM}"
# One spelling alone of each signature: the last character of its base64 has two bits to spare.
_SIGNED = re.compile(r"\.?[\w-]+\.[\w-]{42}[AEIMQUYcgkosw048]", re.ASCII)


class SignedQuotes:
    def __init__(self, secrets: Sequence[str]) -> None:
        """The newest first: it signs, and each of them is good."""
        assert secrets, "the settings see to a secret"
        self._texts = URLSafeSerializer(
            list(reversed(secrets)),
            salt=_PURPOSE,
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )

    def text_of(self, quote: Quote) -> str:
        text = str(self._texts.dumps(quote.as_json()))
        if len(text) > QUOTE_LENGTH_MAX:
            raise ValueError(f"a quote for {quote.model_id} has too many price lines")
        return text

    def quote_of(self, text: str) -> Quote:
        """Raises QuoteNotValid."""
        if len(text) > QUOTE_LENGTH_MAX or not _SIGNED.fullmatch(text):
            raise QuoteNotValid
        try:
            signed = self._texts.loads(text)
        except BadData:
            raise QuoteNotValid from None
        return Quote.of_json(signed)
