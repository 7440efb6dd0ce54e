"""`.env.example`, README's table and docker-compose.yml name the settings and the defaults that the code has."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from app.infrastructure.settings import Settings, load_settings
from tests.unit.catalogue_files import PRICES_BY_NAME
from tests.unit.settings_environment import PRODUCTION, set_all

# The database that docker-compose.yml creates.
COMPOSE_NAMES = {"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"}
NAMES = {name.upper() for name in Settings.model_fields}

pytestmark = pytest.mark.usefixtures("bare_environment")


def plain_defaults() -> dict[str, str]:
    """By name, what a setting is if nothing is given; empty for what is then not set, or made from other values."""
    fields = Settings.model_fields
    return {**{name.upper(): as_written(field.default) for name, field in fields.items()}, "TOKEN_PRICES_JSON": ""}


def as_written(default: object) -> str:
    match default:
        case None:
            return ""
        case bool():
            return str(default).lower()
        case tuple():
            return ",".join(default)
        case _:
            return str(default)


def derived_defaults() -> dict[str, str]:
    """As README's table says them, of settings that are not set and yet have an effect."""
    development = load_settings()
    production = load_settings(**{name.lower(): value for name, value in PRODUCTION.items()})
    assert (production.is_event_id_required, development.is_event_id_required) == (True, False)
    prices = PRICES_BY_NAME
    videos = [price for name, price in prices.items() if "video" in name]
    return {
        "DRAIN_SECONDS": f"{production.seconds_to_drain:g} in production, else {development.seconds_to_drain:g}",
        "PAYMENT_WEBHOOK_SECRET": f"`{development.webhook_secrets[0]}`",
        "TOPUP_REQUIRE_EVENT_ID": "on in production",
        "TOKEN_PRICES_JSON": f"{prices['text_to_image']} and {prices['image_to_image']} an image,"
        f" {min(videos)}-{max(videos)} a video",
        "MEDIA_URL": f"`{(development.store_url or '').replace(str(development.data_dir.absolute()), '<DATA_DIR>')}`",
        "FAL_JWKS_URL": f"its `{development.jwks_url.removeprefix(development.fal_rest_url)}`",
    }


def example(project_dir: Path) -> str:
    return (project_dir / ".env.example").read_text()


def stated_in_the_example(project_dir: Path) -> list[tuple[str, str]]:
    return re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", example(project_dir), re.MULTILINE)


def stated_in_the_table(project_dir: Path) -> list[tuple[str, str]]:
    """Each setting with its default, from rows that may tell of several."""
    section = re.search(r"^## Configuration.*?(?=^## )", (project_dir / "README.md").read_text(), re.S | re.M)
    assert section is not None
    stated: list[tuple[str, str]] = []
    for names_cell, default_cell in re.findall(r"^\| (`[A-Z][^|]*) \|([^|]*)\|", section[0], re.MULTILINE):
        names = re.findall(r"[A-Z_]+", names_cell)
        default = default_cell.strip()
        if len(names) == 1 or not default:
            stated += [(name, default) for name in names]
        else:
            stated += zip(names, default.split(", "), strict=True)
    return stated


def test_the_example_lists_exactly_the_settings(project_dir: Path) -> None:
    assert sorted(name for name, _ in stated_in_the_example(project_dir)) == sorted(NAMES | COMPOSE_NAMES)


def test_every_line_of_the_example_is_a_comment_or_a_setting(project_dir: Path) -> None:
    lines = example(project_dir).splitlines()

    assert [line for line in lines if not re.fullmatch(r"#.*||[A-Z_]+=(\S+)?", line)] == []


def test_the_example_says_the_defaults(project_dir: Path, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(example(project_dir))

    assert load_settings() == Settings(_env_file=None)  # type: ignore[call-arg]


def test_the_example_states_every_default_and_no_other_value(project_dir: Path) -> None:
    stated = {name: value for name, value in stated_in_the_example(project_dir) if name in NAMES}

    assert stated == plain_defaults()


def test_the_example_explains_what_follows_where_a_setting_is_not_set(project_dir: Path) -> None:
    development = load_settings()
    production = load_settings(**{name.lower(): value for name, value in PRODUCTION.items()})
    explained = comments_before(project_dir)

    drain = f"Not set: {production.seconds_to_drain:g} in production, {development.seconds_to_drain:g} in development."
    assert drain in explained["DRAIN_SECONDS"]
    assert "Not set: true in production, false in development." in explained["TOPUP_REQUIRE_EVENT_ID"]
    prices = re.search(r"\{.*?\}", explained["TOKEN_PRICES_JSON"])
    assert prices is not None
    assert json.loads(prices[0]) == PRICES_BY_NAME
    keys = development.jwks_url.removeprefix(development.fal_rest_url)
    assert f"Not set: {{FAL_REST_URL}}{keys}" in explained["FAL_JWKS_URL"]


def comments_before(project_dir: Path) -> Mapping[str, str]:
    """The comment that stands just before each setting, in one line."""
    explained, lines = {}, []
    for line in example(project_dir).splitlines():
        name, is_setting, _ = re.sub("^# (?=[A-Z_]+=)", "", line).partition("=")
        if line.startswith("#") and not re.match("# [A-Z_]+=", line):
            lines.append(line.removeprefix("# "))
        elif is_setting:
            explained[name] = " ".join(lines)
            lines = []
    return explained


def test_the_table_lists_exactly_the_settings(project_dir: Path) -> None:
    assert sorted(name for name, _ in stated_in_the_table(project_dir)) == sorted(NAMES | COMPOSE_NAMES)


def test_the_table_states_every_default_and_no_other_value(project_dir: Path) -> None:
    expected = {name: f"`{value}`" for name, value in plain_defaults().items() if value} | derived_defaults()
    stated = dict(stated_in_the_table(project_dir))

    assert {name: stated[name] for name in expected} == expected
    # The others have no default; whatever the table says of them is in words.
    assert [name for name in NAMES - expected.keys() if re.search(r"[`\d]", stated[name])] == []


def test_the_compose_file_falls_back_on_what_the_example_states(project_dir: Path) -> None:
    compose = (project_dir / "docker-compose.yml").read_text()
    stated = dict(stated_in_the_example(project_dir))

    fallbacks = re.findall(r"(?<!\$)\$\{([A-Z_]+):-([^}]*)\}", compose)

    assert fallbacks
    assert [(name, value) for name, value in fallbacks if stated[name] != value] == []


def as_docker_reads_it(text: str) -> Mapping[str, str]:
    """`docker run --env-file`: whatever stands behind the first = is the value, quotes and comments included."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return dict(line.split("=", 1) for line in lines)


# What the Dockerfile sets; a file given to `docker run` wins over it.
IMAGE = {"APP_ENV": "production", "HOST": "0.0.0.0", "PORT": "8000"}


def test_the_example_takes_nothing_from_a_container(
    monkeypatch: pytest.MonkeyPatch, project_dir: Path, tmp_path: Path
) -> None:
    given = as_docker_reads_it(example(project_dir))
    monkeypatch.chdir(tmp_path)
    set_all(monkeypatch, {**IMAGE, **given, **{name: PRODUCTION[name] for name in PRODUCTION if name != "APP_ENV"}})

    loaded = load_settings()

    assert not IMAGE.keys() & given.keys()
    assert (loaded.app_env, loaded.host, loaded.port) == ("production", "0.0.0.0", 8000)


def test_a_line_of_the_example_means_in_a_container_what_it_means_in_the_file(
    monkeypatch: pytest.MonkeyPatch, project_dir: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    set_all(monkeypatch, as_docker_reads_it(example(project_dir)))

    assert load_settings() == Settings(_env_file=None)  # type: ignore[call-arg]


def test_the_dockerfile_sets_what_the_example_leaves_to_it(project_dir: Path) -> None:
    dockerfile = (project_dir / "Dockerfile").read_text()

    assert [name for name, value in IMAGE.items() if f"{name}={value}" not in dockerfile] == []


def test_every_example_of_several_values_can_be_set(monkeypatch: pytest.MonkeyPatch, project_dir: Path) -> None:
    explained = comments_before(project_dir)["PAYMENT_SOURCES_JSON"]
    sources = re.search(r"\{(?!source).*\}", explained)
    assert sources is not None

    monkeypatch.setenv("PAYMENT_SOURCES_JSON", sources[0][sources[0].index('{"') :])

    assert load_settings().secrets_by_source.keys() == {"stripe", "yookassa"}
