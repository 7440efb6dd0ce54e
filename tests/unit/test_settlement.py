"""Charge what was delivered: how a result becomes an outcome, and an outcome a bill."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.job_errors import NO_OUTPUT
from app.domain.jobs import BillingOutcome, JobStatus, outcome_of_result
from app.domain.terms import Terms
from app.presentation.schemas.jobs import BillingView
from tests.builders import terms_of
from tests.unit.presentation_stand_ins import a_job

PRICES = st.integers(1, 10**9)
FLAGS = st.sampled_from([True, False, None, 1, "true"])


@dataclass(frozen=True)
class Delivery:
    """A request for images, what came, and how many of those can be used."""

    requested: int
    price: int
    result: dict[str, Any]
    usable: int

    @property
    def cost(self) -> int:
        return self.requested * self.price


@st.composite
def deliveries(draw: st.DrawFn) -> Delivery:
    requested, price, produced = draw(st.integers(1, 4)), draw(PRICES), draw(st.integers(0, 6))
    result: dict[str, Any] = {"images": [{"url": f"https://fal.media/{number}.png"} for number in range(produced)]}
    flags = draw(st.none() | st.lists(FLAGS, max_size=8))
    if flags is not None:
        result["has_nsfw_concepts"] = flags
    withheld = len([number for number, flag in enumerate(flags or []) if number < produced and flag is True])
    return Delivery(requested, price, result, produced - withheld)


@given(deliveries())
def test_refunds_the_price_of_each_output_that_is_missing_or_withheld(delivery: Delivery) -> None:
    outcome = outcome_of_result(delivery.result, terms_of(delivery.cost, delivery.requested))

    if delivery.usable == 0:
        assert (outcome.status, outcome.result, outcome.error_code) == (JobStatus.FAILED, None, "no_output")
    else:
        missing = max(delivery.requested - delivery.usable, 0)
        assert (outcome.status, outcome.result) == (JobStatus.COMPLETED, delivery.result)
        assert outcome.refunded_tokens == missing * delivery.price


@given(deliveries(), st.integers(1, 10**12))
def test_never_refunds_as_much_as_was_paid_for_a_result_whatever_it_cost(delivery: Delivery, cost: int) -> None:
    outcome = outcome_of_result(
        delivery.result, Terms.before_lines(is_video=False, cost_tokens=cost, outputs=delivery.requested)
    )

    assert type(outcome.refunded_tokens) is int
    assert 0 <= outcome.refunded_tokens < cost


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        (None, JobStatus.COMPLETED),
        (False, JobStatus.COMPLETED),
        ([False], JobStatus.COMPLETED),
        ([], JobStatus.COMPLETED),
        (True, JobStatus.FAILED),
        ([True], JobStatus.FAILED),
    ],
)
def test_a_video_is_one_output(flags: object, status: JobStatus) -> None:
    result = {"video": {"url": "https://fal.media/film.mp4"}, "has_nsfw_concepts": flags}

    outcome = outcome_of_result(result, Terms.before_lines(is_video=True, cost_tokens=30, outputs=1))

    assert (outcome.status, outcome.refunded_tokens) == (status, 0)


def test_says_that_nothing_was_charged_when_nothing_can_be_used() -> None:
    outcome = outcome_of_result({"images": [{}], "has_nsfw_concepts": [True]}, terms_of(5))

    assert outcome.error_message == f"{NO_OUTPUT.sentence()} Nothing was charged."


@given(PRICES, st.data())
def test_a_bill_adds_up_to_the_cost(cost: int, data: st.DataObject) -> None:
    refunded = data.draw(st.integers(0, cost))

    billing = a_job(status=JobStatus.COMPLETED, cost_tokens=cost, refunded_tokens=refunded).billing

    assert billing is not None
    assert (billing.charged_tokens, billing.refunded_tokens) == (cost - refunded, refunded)
    assert (billing.outcome is BillingOutcome.NOT_CHARGED) is (billing.charged_tokens == 0)
    assert (billing.outcome is BillingOutcome.CHARGED) is (refunded == 0)
    assert BillingView.of(billing).reason.endswith(".")


@pytest.mark.parametrize("status", JobStatus)
def test_a_bill_comes_with_the_end(status: JobStatus) -> None:
    billing = a_job(status=status).billing

    assert (billing is not None) is status.is_final
