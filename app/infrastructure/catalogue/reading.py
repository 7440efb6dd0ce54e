"""Reads the catalogue: the files that come with the service, and over them those of the operator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.catalogue import Catalogue
from app.domain.errors import InvalidCatalogue
from app.domain.kinds import GenerationKind
from app.domain.models import Model
from app.infrastructure.catalogue.files import File, Spot, closest, read_file
from app.infrastructure.catalogue.model_forms import Vocabulary, make_model
from app.infrastructure.catalogue.tables import FamilyTable

BUILT_IN_DIR = Path(__file__).parent
_FAMILIES = "families"
_VOCABULARY = "parameters.toml"
_PRICE_KEYS = ("price", "cost_usd")


@dataclass(frozen=True, kw_only=True)
class _Written:
    """A model as its file has it."""

    table: Mapping[str, Any]
    family: str
    spot: Spot
    is_built_in: bool


def read_catalogue(directory: Path | None = None) -> Catalogue:
    """Read the built-in models, with those of the operator's directory over them.

    Raises InvalidCatalogue with everything that is wrong.
    """
    reader = _Reader()
    reader.read(BUILT_IN_DIR / _VOCABULARY, sorted((BUILT_IN_DIR / _FAMILIES).glob("*.toml")), is_built_in=True)
    if directory is not None:
        reader.read_directory(directory)
    return reader.catalogue()


class _Reader:
    def __init__(self) -> None:
        self.problems: list[str] = []
        self._vocabulary = Vocabulary()
        self._written: dict[str, _Written] = {}

    def read_directory(self, directory: Path) -> None:
        if not directory.is_dir():
            self.problems.append(f"CATALOGUE_DIR: {directory} is no directory. Name one with TOML files, or none.")
            return
        # A folder `families` is looked into, too, so that a copy of the built-in files works as it is.
        paths = sorted([*directory.glob("*.toml"), *directory.glob(f"{_FAMILIES}/*.toml")])
        # Editors leave hidden files beside those that are open.
        families = [path for path in paths if path.name != _VOCABULARY and not path.name.startswith(".")]
        if not families and not (directory / _VOCABULARY).exists():
            # As an empty mount has it: what is sold then would not be what was meant.
            self.problems.append(f"CATALOGUE_DIR: {directory} has no .toml file. Put one there, or leave it out.")
        self.read(directory / _VOCABULARY, families, is_built_in=False)

    def read(self, vocabulary: Path, families: Sequence[Path], *, is_built_in: bool) -> None:
        root = vocabulary.parent
        if is_built_in or vocabulary.exists():
            file = read_file(vocabulary, vocabulary.name if is_built_in else str(vocabulary), self.problems)
            if file is not None:
                self._vocabulary.add(file, self.problems)
        files = [
            read_file(path, str(path.relative_to(root) if is_built_in else path), self.problems) for path in families
        ]
        tables = [(file, table) for file in files if file is not None and (table := self._table_of(file)) is not None]
        for file, table in tables:
            self._remove(file, table)
        self._add_models(tables, is_built_in=is_built_in)
        for file, table in tables:
            self._change_prices(file, table)

    def _table_of(self, file: File) -> FamilyTable | None:
        table = Spot(file, (), self.problems).read(FamilyTable, file.document)
        if table is not None and table.model and not table.family:
            Spot(file, (), self.problems).say("`family` is missing: add it above the first model.")
        return table

    def _add_models(self, tables: Sequence[tuple[File, FamilyTable]], *, is_built_in: bool) -> None:
        added: dict[str, Spot] = {}
        for file, family in tables:
            for index, table in enumerate(family.model):
                model_id = str(table.get("id", f"number {index + 1}"))
                spot = Spot(file, ("model", index), self.problems, about=model_id)
                if model_id in added:
                    other = added[model_id]
                    spot.say(f"this model is in {other.file.place(other.path)} already: keep one of the two.", "id")
                    continue
                added[model_id] = spot
                self._written[model_id] = _Written(
                    table=table, family=family.family, spot=spot, is_built_in=is_built_in
                )

    def _change_prices(self, file: File, table: FamilyTable) -> None:
        for model_id, prices in table.prices.items():
            spot = Spot(file, ("prices", model_id), self.problems, about=model_id)
            written = self._written.get(model_id)
            if written is None:
                spot.say(f"no model has this id: {closest(model_id, list(self._written))}")
            elif not prices or not set(prices) <= set(_PRICE_KEYS):
                spot.say("prices have the keys `price` and `cost_usd`, and no others: correct them.")
            else:
                self._written[model_id] = _Written(
                    table={**written.table, **prices},
                    family=written.family,
                    spot=written.spot.with_parts_of(spot, prices),
                    is_built_in=written.is_built_in,
                )

    def _remove(self, file: File, table: FamilyTable) -> None:
        for index, model_id in enumerate(table.remove):
            if self._written.pop(model_id, None) is None:
                Spot(file, ("remove", index), self.problems).say(
                    f"there is no model {model_id} to remove: {closest(model_id, list(self._written))}"
                )

    def catalogue(self) -> Catalogue:
        """Raises InvalidCatalogue."""
        self._give_way_to_own_defaults()
        made = [
            (written, make_model(written.table, written.family, self._vocabulary, written.spot))
            for written in self._written.values()
        ]
        models = [model for _, model in made if model is not None]
        self._check_price_names(models)
        if not self.problems:
            self._check_defaults(models)
        if self.problems:
            raise InvalidCatalogue(self.problems)
        return Catalogue(models, self._vocabulary.types)

    def _give_way_to_own_defaults(self) -> None:
        """A model of the operator that is a default takes the place of the built-in default of its type."""
        own = {
            written.table.get("type")
            for written in self._written.values()
            if not written.is_built_in
            and written.table.get("is_default") is True
            # Whatever is no text is told with the rest of what is wrong.
            and isinstance(written.table.get("type"), str)
        }
        for model_id, written in self._written.items():
            if written.is_built_in and written.table.get("type") in own:
                self._written[model_id] = _Written(
                    table={**written.table, "is_default": False},
                    family=written.family,
                    spot=written.spot,
                    is_built_in=True,
                )

    def _check_defaults(self, models: Sequence[Model]) -> None:
        for kind in GenerationKind:
            defaults = [model.id for model in models if model.kind is kind and model.is_default]
            if not defaults:
                fitting = [model.id for model in models if model.kind is kind]
                where = f"one of {', '.join(fitting)}" if fitting else f"a model of the type {kind}"
                self.problems.append(f"{kind} has no default: write is_default = true at {where}.")
            for model_id in defaults[1:]:
                self._written[model_id].spot.say(
                    f"{kind} has a default already, {defaults[0]}: take is_default away from one of the two.",
                    "is_default",
                )

    def _check_price_names(self, models: Sequence[Model]) -> None:
        named: dict[str, str] = {}
        for model in models:
            for line, name in model.price_names.items():
                if name in named:
                    self._written[model.id].spot.say(
                        f"the line `{line}` is overridden by `{name}`, as a line of {named[name]} is: rename it.",
                        "price",
                    )
                named[name] = model.id
