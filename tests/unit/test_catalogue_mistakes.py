"""Each mistake in a file stops the start with the file, the line, and what to change."""

from pathlib import Path

import pytest

from app.domain.errors import InvalidCatalogue
from app.infrastructure.catalogue.reading import read_catalogue
from tests.unit.catalogue_files import MODEL, catalogue_of


def problems_of(directory: Path, *texts: str) -> list[str]:
    with pytest.raises(InvalidCatalogue) as refused:
        catalogue_of(directory, *texts)
    return [problem.removeprefix(f"{directory}/") for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ('title = "Painter"', 'titel = "Painter"', 6, "no key `titel`: did you mean `title`?"),
        ('title = "Painter"', 'title = "Painter"\ntokens = 5', 7, "no key `tokens`: there are id, type, title, "),
        ("tokens = 4, ", "tokens = 4, sources = 5, ", 15, "no key `price.0.sources`: there are line, per, after, "),
        ("from = 1,", "form = 1,", 10, "no key `typical_seconds.form`: did you mean `from`?"),
        ("prompt = {required = true}", "prompt = {tokens = 1}", 23, "no key `tokens`: there are type, group, label, "),
        ("[[model.constraints]]", "[model.constraints]", 33, "write [[model.constraints]] above each of them"),
        ('title = "Painter"\n', "", 3, "`title` is missing: add it."),
        ('title = "Painter"', "title = 5", 6, "`title` must be a text in quotes."),
        ('title = "Painter"', 'title = " "', 6, "`title` must not be blank."),
        ('title = "Painter"', 'title = "Painter', 6, "is not valid TOML here."),
        ('title = "Painter"', 'title = "Painter"\ntitle = "Again"', 7, "is not valid TOML here."),
        ('type = "TEXT_TO_IMAGE"', 'type = "IMAGE"', 5, "`type` must be 'TEXT_TO_IMAGE', "),
        (', ru = "Рисует."', "", 7, "`description.ru` is missing"),
        ("checked = 2026-10-10", 'checked = "2026-10-10"', 8, "`checked` must be a day"),
        ("from = 1, to = 2", "from = 3, to = 2", 10, "ends before it begins"),
        ('outputs = "images"', 'outputs = "image"', 13, "`result.outputs` must be 'images' or 'video'"),
        ("tokens = 4, ", "", 15, "`price.0.tokens` is missing: add it."),
        ("tokens = 4", "tokens = 0", 15, "`price.0.tokens` must be at least 1."),
        ("tokens = 4", "tokens = 4.5", 15, "`price.0.tokens` must be a whole number."),
        ("tokens = 4", 'tokens = "4"', 15, "`price.0.tokens` must be a whole number."),
        ("tokens = 4", "tokens = 1000000000000", 15, "`price.0.tokens` must be at most 1000000000."),
        ('per = "image", tokens', 'per = "picture", tokens', 15, "`price.0.per` must be 'image'"),
        ('per = "image", tokens', 'per = "second", tokens', 15, "needs the parameter `duration`"),
        ('per = "image", tokens', 'per = "megapixel", tokens', 15, "make it required, or give it `default`"),
        ('"3/2"', '"3/0"', 15, "must be an exact fraction above 0"),
        ('"3/2"', '"-1"', 15, "must be an exact fraction above 0"),
        ('{"2K" = "3/2"}', '{"3K" = "3/2"}', 15, "which `resolution` cannot be: there are 1K, 2K."),
        ("factors = {resolution", "factors = {resolutoin", 15, "no parameter `resolutoin`: did you mean `resolution`?"),
        ("factors = {resolution", "factors = {prompt", 15, "`prompt` has not a few fixed values"),
        ("[true]}, is_optional", "[1]}, is_optional", 16, "`when` names 1, which `generate_audio` cannot be"),
        ("[true]}, is_optional", "[true, true]}, is_optional", 16, "has the same value twice"),
        (", is_optional = true", "", 16, "generate_audio false has no price in the group `sound`"),
        ('{line = "sound"', '{line = "images"', 16, "there is a line `images` already"),
        (
            '"run", tokens = 1, when = {generate_audio = [true]}, is_optional = true',
            '"run", tokens = 1, group = "images"',
            16,
            "any request is priced twice in the group `images`, by `images` and `sound`",
        ),
        ("tokens = 4, fact", "tokens = 4, is_optional = true, fact", 14, "every line is optional"),
        ("tokens = 4, fact", "tokens = 4, after = 1, fact", 14, "costs nothing"),
        ('usd = "0.03"', "usd = 0.03", 19, "must be an exact number above 0 as text"),
        ("maximum = 4", "maximum = 0", 27, "`minimum` is above `maximum`"),
        ("maximum = 4", "maximum = 4.5", 27, "`maximum` must be a whole number, as the type is integer"),
        ("maximum = 4", "maximum = 99999999999999999999", 27, "must be a number that 64 bits can hold"),
        ("maximum = 4", "length_max = 4, maximum = 4", 27, "`length_max` says nothing of the type integer"),
        ("maximum = 4, default = 1", "maximum = 4, default = 5", 27, "`default` must be at most 4."),
        ("maximum = 4, default = 1", "maximum = 4, default = true", 27, "`default` must be a whole number."),
        ('assumed = "1K"', 'assumed = "3K"', 25, "`assumed` must be one of 1K, 2K."),
        ('assumed = "1K"', 'assumed = "1K", default = "1K"', 25, "has `default` and `assumed`"),
        ('values = {"2K" = 2048}', 'values = {"3K" = 2048}', 25, "`fal.values` names 3K"),
        ('name = "size"', 'name = "mode"', 25, "fal's field `mode` is filled by `fixed` already"),
        (
            'presets = ["square"]',
            'presets = ["squre"]',
            28,
            "known of the preset squre: did you mean `square`",
        ),
        ("side_min = 100, ", "", 28, "only with both `side_min` and `side_max`"),
        ("negative_prompt", "negativ_prompt", 24, "no parameter `negativ_prompt`: did you mean `negative_prompt`?"),
        ('example.prompt = "A fox"', "example.num_images = 5", 12, "`num_images` must be at most 4."),
        ('example.prompt = "A fox"', 'example.promt = "A fox"', 12, "no parameter `promt`"),
        ('example.prompt = "A fox"', "example.seed = 1", 12, "`prompt` is required: add it."),
        ('mode = "fine"', "mode = 2026-10-10", 31, "`fixed.mode` must be a text, a number"),
        ('when = {resolution = ["2K"]}', 'when = {resolution = ["3K"]}', 34, "3K is no value of `resolution`"),
        ("require = {generate_audio = [false]}", "", 33, "says nothing: add `require` or `forbid`"),
        ("require = {generate_audio = [false]}", 'forbid = ["resolution"]', 35, "cannot be forbidden: use `require`"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, line: int, told: str) -> None:
    assert MODEL.count(old) >= 1

    problems = problems_of(tmp_path, MODEL.replace(old, new, 1))

    assert any(problem.startswith(f"file0.toml, line {line}: ") and told in problem for problem in problems), problems


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, MODEL.replace("tokens = 4", "tokens = 0").replace('"0.03"', '"0"'))

    assert len(problems) == 2


def test_a_model_that_is_written_twice_is_named_with_both_places(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, MODEL, MODEL)

    assert problem.startswith("file1.toml, line 4: house/painter: this model is in ")
    assert "file0.toml, line 3 already" in problem


def test_two_defaults_of_a_type_and_none_are_told(tmp_path: Path) -> None:
    default = MODEL.replace("title =", "is_default = true\ntitle =")

    (second,) = problems_of(tmp_path, default, default.replace("house/painter", "house/other"))
    assert second.startswith("file1.toml, line 6: house/other: TEXT_TO_IMAGE has a default already, house/painter")

    (none,) = problems_of(tmp_path, 'remove = ["fal-ai/wan-25-preview/text-to-video"]', "")
    assert none.startswith("TEXT_TO_VIDEO has no default: write is_default = true at ")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            'remove = ["fal-ai/flux/schnel"]',
            "file0.toml, line 1: there is no model fal-ai/flux/schnel to",
        ),
        ('[prices."fal-ai/flux/schnel"]\nprice = []', "file0.toml, line 1: fal-ai/flux/schnel: no model has this id"),
        (
            '[prices."fal-ai/flux/schnell"]\nprices = []',
            "file0.toml, line 1: fal-ai/flux/schnell: prices have",
        ),
        (
            '[prices."fal-ai/flux/schnell"]\nprice = [\n{line = "images", per = "image", tokens = 0}]',
            "file0.toml, line 3: fal-ai/flux/schnell: `price.0.tokens` must be at least 1.",
        ),
        ("models = []", "file0.toml, line 1: there is no key `models`: did you mean `model`?"),
        ("whole = 5", "file0.toml, line 1: there is no key `whole`: there are family, model, prices, remove."),
        ("tokens = 5", "file0.toml, line 1: there is no key `tokens`: there are family, model, prices, remove."),
        ('remove = "x"', "file0.toml, line 1: `remove` must be a list: put square brackets around what it has."),
        (
            MODEL.replace("[[model]]", "[model]").partition("[[model.")[0],
            "file0.toml, line 3: `model` must be a list of tables: write [[model]] above each of them, in two pairs of",
        ),
        (
            '[prices."fal-ai/flux/schnell".price]\nline = "images"\nper = "megapixel"\ntokens = 3',
            'file0.toml, line 1: fal-ai/flux/schnell: `price` must be a list of tables: write [[prices."fal-ai',
        ),
    ],
)
def test_a_mistake_in_a_change_is_told_where_it_stands(tmp_path: Path, text: str, told: str) -> None:
    assert problems_of(tmp_path, text)[0].startswith(told)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'family = "\xe9"')

    assert problems_of(tmp_path) == ["latin.toml: is not UTF-8 text. Save it as UTF-8."]
    with pytest.raises(InvalidCatalogue, match="is no directory"):
        read_catalogue(tmp_path / "missing")


def test_a_mistake_in_the_vocabulary_is_told_there(tmp_path: Path) -> None:
    (tmp_path / "parameters.toml").write_text('[seed]\ntype = "integer"\ngroup = "mor"\n')

    problems = problems_of(tmp_path)

    assert "parameters.toml, line 3: fal-ai/flux/schnell: `group` must be 'input', 'output' or 'more'." in problems


@pytest.mark.parametrize("name", ["quote", "model", "copy", "model_dump", "Strength", "a-b"])
def test_a_parameter_has_a_name_that_nothing_else_has(tmp_path: Path, name: str) -> None:
    (tmp_path / "parameters.toml").write_text(f'["{name}"]\ntype = "integer"\ngroup = "more"\n')

    assert problems_of(tmp_path, MODEL) == [
        f"parameters.toml, line 1: `{name}` cannot be the name of a parameter: choose another one, of a-z, 0-9 and _."
    ]


def test_no_more_lines_count_together_than_a_quote_has_room_for(tmp_path: Path) -> None:
    lines = "".join(f'{{line = "line_{number}", per = "image", tokens = 1}}, ' for number in range(9))
    start, end = MODEL.index("price = ["), MODEL.index("cost_usd = [")
    text = f"{MODEL[:start]}price = [{lines}]\n{MODEL[end:]}"

    (problem,) = problems_of(tmp_path, text)

    assert "more than 8 lines could count together, which no quote has room for" in problem


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('type = "TEXT_TO_IMAGE"', 'type = ["TEXT_TO_IMAGE"]\nis_default = true', "`type` must be"),
        ('id = "house/painter"', 'id = "house/../painter"', "`id` must be an id of fal, such as fal-ai/flux/schnell"),
        ("maximum = 4, default = 1", f"maximum = 4, default = 1{'0' * 400}", "`default` must be at most 4"),
        ("tokens = 4", f"tokens = 1{'0' * 5000}", "has a number of thousands of digits"),
        (
            'line = "sound"',
            'line = "So und"',
            "`price.1.line` must be at most 40 of a-z, 0-9 and _",
        ),
    ],
)
def test_junk_is_told_in_a_sentence(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in MODEL

    problems = problems_of(tmp_path, MODEL.replace(old, new, 1))

    assert any(told in problem for problem in problems), problems


def test_a_directory_without_a_file_is_no_catalogue(tmp_path: Path) -> None:
    (tmp_path / "prices.TOML").write_text(MODEL)

    with pytest.raises(InvalidCatalogue, match=r"has no \.toml file"):
        read_catalogue(tmp_path)


@pytest.mark.parametrize("line", ['per = "megapixel", tokens = 3, after = 1', 'per = "image", tokens = 4, after = 1'])
def test_what_delivers_something_costs_something(tmp_path: Path, line: str) -> None:
    old = '{line = "images", per = "image", tokens = 4, factors = {resolution = {"2K" = "3/2"}}}'
    text = MODEL.replace(old, f'{{line = "images", {line}}}').replace(
        "num_images = {maximum = 4", "num_images = {minimum = 2, maximum = 4"
    )
    text = text.replace('presets = ["square"]', 'presets = ["square"], assumed = "square"').replace(
        "default = 1, fal", "default = 2, fal"
    )
    text = text.replace(
        '    {line = "sound", per = "run", tokens = 1, when = {generate_audio = [true]}, is_optional = true},\n', ""
    )

    problems = problems_of(tmp_path, text)

    assert any("costs nothing" in problem for problem in problems), problems
