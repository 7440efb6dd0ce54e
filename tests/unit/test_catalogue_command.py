"""`python -m app catalogue check`, `list`, `show` and `table`: what they say of our files and of an operator's."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from tests.builders import BUILT_IN
from tests.unit.catalogue_files import MODEL

PAINTER = "house/painter"
WAN_IMAGE = "fal-ai/wan-25-preview/text-to-image"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CATALOGUE_DIR", "TOKEN_PRICES_JSON", "APP_ENV", "HOST", "SAFETY_CHECKER"):
        monkeypatch.setenv(name, "")


def run(*words: str, **environment: str) -> Result:
    return CliRunner().invoke(app, ["catalogue", *words], env=environment, terminal_width=200)


def test_check_says_that_our_files_are_right() -> None:
    result = run("check")

    assert result.exit_code == 0
    assert "the catalogue is right" in result.output
    assert "below cost" not in result.output


@pytest.mark.parametrize(
    ("token_usd", "named"), [("0.01", 2), ("0.024", 1), ("0.03", 0)], ids=["a cent", "between", "more than enough"]
)
def test_check_names_what_is_sold_below_cost(token_usd: str, named: int) -> None:
    result = run("check", "--token-usd", token_usd)

    assert result.exit_code == 0
    assert result.output.count("sold below cost: ") == named
    assert ("nothing is sold below its cost" in result.output) == (not named)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e-999999999", "1e999999999", "a cent", ""])
def test_check_takes_no_value_of_a_token_that_is_none(text: str) -> None:
    result = run("check", "--token-usd", text)

    assert result.exit_code == 2
    assert "must be a number from" in result.output


@pytest.mark.parametrize(
    ("before", "after", "mend"),
    [
        ("tokens = 4", "tokens = 0", "must be at least 1"),
        ("is_optional = true", "is_optional = 1", "must be true or false"),
        ('"2K" = "3/2"', '"4K" = "3/2"', "4K"),
    ],
)
def test_check_names_file_line_and_mend(tmp_path: Path, before: str, after: str, mend: str) -> None:
    assert before in MODEL
    (tmp_path / "house.toml").write_text(MODEL.replace(before, after))

    result = run("check", CATALOGUE_DIR=str(tmp_path))

    assert result.exit_code == 1
    assert f"error: {tmp_path / 'house.toml'}, line " in result.output
    assert mend in result.output


def test_check_names_a_directory_that_is_none(tmp_path: Path) -> None:
    result = run("check", CATALOGUE_DIR=str(tmp_path / "absent"))

    assert (result.exit_code, "CATALOGUE_DIR: " in result.output) == (1, True)


def test_check_and_list_name_what_the_safety_checker_cannot_be_ordered_for(tmp_path: Path) -> None:
    (tmp_path / "house.toml").write_text(
        MODEL
        + MODEL.partition("\n\n")[2]
        .replace(PAINTER, "house/safe")
        .replace("title =", 'safety_switch = "safe"\ntitle =')
    )
    listed = run("list", "--without-safety-switch", CATALOGUE_DIR=str(tmp_path)).output
    without = [line.split()[0] for line in listed.splitlines()[1:]]

    told = run("check", SAFETY_CHECKER="on", CATALOGUE_DIR=str(tmp_path)).output

    assert PAINTER in without
    assert not {"house/safe", WAN_IMAGE, "fal-ai/flux/schnell"} & set(without)
    assert f"SAFETY_CHECKER=on: {len(without)} of {len(BUILT_IN) + 2} models have no switch for it" in told
    assert "catalogue list --without-safety-switch" in told
    assert "SAFETY_CHECKER" not in run("check", CATALOGUE_DIR=str(tmp_path)).output
    shown = run("show", "house/safe", CATALOGUE_DIR=str(tmp_path)).output
    assert "  with SAFETY_CHECKER=on: safe = true" in shown.splitlines()


def test_list_shows_a_type_with_its_default_first() -> None:
    heading, first, *_ = run("list", "--type", "TEXT_TO_IMAGE").output.splitlines()

    assert heading.split()[:2] == ["model", "type"]
    assert first.split() == [WAN_IMAGE, "(default)", "TEXT_TO_IMAGE", *first.split()[3:]]


def test_list_and_show_know_an_operators_model(tmp_path: Path) -> None:
    (tmp_path / "house.toml").write_text(MODEL)

    shown = run("show", PAINTER, CATALOGUE_DIR=str(tmp_path)).output

    assert PAINTER in run("list", CATALOGUE_DIR=str(tmp_path)).output
    for line in (
        "  resolution: choice, 1K | 2K, fal's default 1K, at fal size",
        "  num_images: integer, 1 to 4, default 1",
        "  always sent: mode = fine",
        "  when resolution is 2K: generate_audio must be false",
        "  images: 4 tokens per image, times 3/2 for 2K of resolution",
        "  sound: 1 token per run, when generate_audio is true",
        "  images: 0.03 USD per image",
        "  https://example.com",
    ):
        assert line in shown.splitlines()


def test_show_says_where_the_models_are_listed() -> None:
    result = run("show", "fal-ai/unknown")

    assert (result.exit_code, "catalogue list" in result.output) == (1, True)


def test_the_document_has_the_table_of_the_models_as_they_are(project_dir: Path) -> None:
    document = (project_dir / "docs/catalogue.md").read_text()

    result = run("table")

    assert result.exit_code == 0
    committed = re.search(r"<!-- begin of the table: .*? -->\n(.*)<!-- end of the table -->", document, re.S)
    assert committed is not None
    assert committed[1] == result.output, "put what `python -m app catalogue table` prints between the two marks"
