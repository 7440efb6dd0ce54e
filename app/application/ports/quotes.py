from typing import Protocol

from app.domain.quotes import Quote


class Quotes(Protocol):
    """Quotes as texts that nobody else can make."""

    def text_of(self, quote: Quote) -> str: ...

    def quote_of(self, text: str) -> Quote:
        """Raises QuoteNotValid."""
        ...
