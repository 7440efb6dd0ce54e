"""What the command line refuses before it looks for a database."""

from uuid import uuid4

import pytest
from typer.testing import CliRunner

from app.cli import app

USER = str(uuid4())
WHY = ("--reason", "why", "--actor", "who", "--event-id", "ticket")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("reverse", "pay_1", "--event-id", "r"), "either AMOUNT or --withdraws"),
        (("reverse", "pay_1", "5", "--withdraws", "r", "--event-id", "w"), "either AMOUNT or --withdraws"),
        (("reverse", "pay_1", "5"), "--event-id"),
        (("reverse", "pay_1", "5", "--event-id", ""), "--event-id must have 1 to 255 characters"),
        (("reverse", "x" * 256, "5", "--event-id", "r"), "PAYMENT must have 1 to 255 characters"),
        (("reverse", "pay_1", "0", "--event-id", "r"), "AMOUNT"),
        (("adjust", USER, "0", *WHY), "AMOUNT must not be 0"),
        (("adjust", USER, "5", "--reason", " ", "--actor", "who", "--event-id", "x"), "--reason must have 1 to 500"),
        (("adjust", USER, "5", "--actor", "who", "--event-id", "x"), "--reason"),
        (("adjust", USER, "--5", *WHY), "AMOUNT"),
        (("adjust", USER, "-5", "--unknown", *WHY), "--unknown"),
        (("adjust", USER, str(-(10**12) - 1), *WHY), "AMOUNT"),
        (("adjust", "nobody", "5", *WHY), "USER"),
    ],
)
def test_says_what_is_wrong(arguments: tuple[str, ...], word: str) -> None:
    outcome = CliRunner().invoke(app, ["tokens", *arguments])

    assert outcome.exit_code in (1, 2)
    assert word.lower() in outcome.output.lower(), outcome.output
