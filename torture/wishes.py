"""What the callers ask of the simulator, and how such a job may end."""

from collections.abc import Mapping
from dataclasses import dataclass

PRICE_TOKENS = 5


@dataclass(frozen=True, slots=True)
class Wish:
    words: str
    ends: Mapping[str, int]
    """The final statuses that are right, and how many images each of them charges."""

    images: int = 1
    weight: int = 1
    price_tokens: int = PRICE_TOKENS
    """Of an image."""
    is_canceled: bool = False
    """The caller cancels it, sooner or later."""

    @property
    def is_webhook_usable(self) -> bool:
        return "[webhook:never]" not in self.words and "[webhook:forged]" not in self.words

    @property
    def cost_tokens(self) -> int:
        return self.images * self.price_tokens

    def charge_tokens(self, status: str) -> int | None:
        """None: the job must not end so."""
        images = self.ends.get(status)
        return None if images is None else images * self.price_tokens


WISHES = (
    Wish("", {"COMPLETED": 1}, weight=12),
    Wish("", {"COMPLETED": 3}, images=3, weight=3),
    Wish("[fail]", {"FAILED": 0}, weight=3),
    Wish("[fail:500]", {"FAILED": 0}, weight=2),
    Wish("[no-error-field]", {"FAILED": 0}),
    Wish("[partial:1]", {"COMPLETED": 1}, images=3, weight=3),
    Wish("[nsfw]", {"FAILED": 0}, weight=2),
    Wish("[nsfw:1]", {"COMPLETED": 1}, images=2, weight=2),
    Wish("[submit:422]", {"FAILED": 0}),
    Wish("[submit:429x1]", {"COMPLETED": 1}, weight=3),
    Wish("[submit:drop]", {"COMPLETED": 1}, weight=2),
    # Nobody tells of it: it ends at the time limit. fal's request history is first searched later than that.
    Wish("[submit:drop] [webhook:never]", {"FAILED": 0}),
    Wish("[flaky:2] [webhook:never]", {"COMPLETED": 1}, weight=3),
    Wish("[webhook:never]", {"COMPLETED": 1}, weight=3),
    Wish("[webhook:never] [fail]", {"FAILED": 0}),
    Wish("[webhook:early]", {"COMPLETED": 1}, weight=2),
    Wish("[webhook:duplicate:5]", {"COMPLETED": 1}, weight=3),
    Wish("[webhook:null]", {"COMPLETED": 1}),
    Wish("[webhook:forged]", {"COMPLETED": 1}),
    Wish("[slow:4]", {"CANCELED": 0, "COMPLETED": 1}, weight=4, is_canceled=True),
    Wish("[slow:4] [ignore-cancel]", {"CANCELED": 0, "COMPLETED": 1}, is_canceled=True),
    Wish("[stuck]", {"CANCELED": 0}, weight=2, is_canceled=True),
)
WEIGHTS = [wish.weight for wish in WISHES]
