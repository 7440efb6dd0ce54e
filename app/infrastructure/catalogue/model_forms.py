"""Makes a model of its table, if everything in it fits together."""

import re
from collections.abc import Hashable, Mapping
from fractions import Fraction
from typing import Any

from pydantic import BaseModel

from app.domain.models import Constraint, CostRule, ListedPrice, Model
from app.domain.parameter_values import problem_of
from app.domain.parameters import Parameter, ParameterType
from app.domain.pricing import PriceRule
from app.domain.terms import ResultShape
from app.infrastructure.catalogue.files import File, Spot, closest
from app.infrastructure.catalogue.parameter_forms import key_text, make_parameter
from app.infrastructure.catalogue.price_checks import check_lines, check_total
from app.infrastructure.catalogue.tables import ConstraintTable, CostTable, ModelTable, ParameterTable, PriceTable

_PRESETS = "presets"


_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
# What a request says beside the parameters of its model, now or soon, and what its class has of its own.
_TAKEN_NAMES = {"model", "type", "quote", "max_cost_tokens", "webhook_url", "of_model", "wish", *dir(BaseModel)}


class Vocabulary:
    """What is the same for every model that has a parameter. A later file lays its parameters over an earlier one's."""

    def __init__(self) -> None:
        self._tables: dict[str, tuple[File, Mapping[str, Any]]] = {}

    def add(self, file: File, problems: list[str]) -> None:
        for name, table in file.document.items():
            if not isinstance(table, Mapping):
                Spot(file, (), problems).say(f"`{name}` must be a table: write [{name}] above its keys.", name)
            elif name in _TAKEN_NAMES or not _NAME.fullmatch(name):
                Spot(file, (), problems).say(
                    f"`{name}` cannot be the name of a parameter: choose another one, of a-z, 0-9 and _.", name
                )
            else:
                self._tables[name] = (file, table)

    def parameter(self, name: str, own: Any, spot: Spot) -> Parameter | None:
        if name not in self._tables:
            spot.say(f"the vocabulary has no parameter `{name}`: {closest(name, list(self._tables))}")
            return None
        if not isinstance(own, Mapping):
            spot.say(f"`{name}` must be a table: write {name} = {{}} if there is nothing to say.")
            return None
        file, shared = self._tables[name]
        said_there = Spot(file, (name,), spot.problems, about=spot.about)
        spot = spot.with_parts_of(said_there, [key for key in shared if key not in own])
        table = spot.read(ParameterTable, self._merged(shared, own, spot))
        return None if table is None else make_parameter(name, table, spot)

    @property
    def types(self) -> Mapping[str, ParameterType]:
        """By name. What no model has is not checked, and may say anything."""
        said = {name: table.get("type") for name, (_, table) in self._tables.items()}
        return {name: each for name, type_ in said.items() for each in ParameterType if each == type_}

    @staticmethod
    def _merged(shared: Mapping[str, Any], own: Mapping[str, Any], spot: Spot) -> Mapping[str, Any]:
        """A model that names values has no range any more. It names presets, or brings sizes of its own."""
        left_out = {_PRESETS} | ({"minimum", "maximum"} if "values" in own else set())
        merged = {**{key: value for key, value in shared.items() if key not in left_out}, **own}
        named, sizes = own.get(_PRESETS), shared.get(_PRESETS, {})
        if isinstance(named, list) and isinstance(sizes, Mapping):
            unknown = [preset for preset in named if not isinstance(preset, str) or preset not in sizes]
            for preset in unknown:
                spot.say(f"no size is known of the preset {preset}: {closest(str(preset), list(sizes))}", _PRESETS)
            merged[_PRESETS] = {preset: sizes[preset] for preset in named if preset not in unknown}
        return merged


def make_model(table: Mapping[str, Any], family: str, vocabulary: Vocabulary, spot: Spot) -> Model | None:
    """None if something does not fit; then that is said."""
    known = len(spot.problems)
    written = table.get("parameters")
    parameters = _parameters(written, vocabulary, spot) if isinstance(written, Mapping) else {}
    form = spot.read(ModelTable, table)
    if form is None or len(spot.problems) > known:
        return None
    if form.typical_seconds.from_seconds > form.typical_seconds.to_seconds:
        spot.say("`typical_seconds` ends before it begins: change `from` and `to`.", "typical_seconds")
    for index, constraint in enumerate(form.constraints):
        _check_constraint(constraint, parameters, spot.inside("constraints", index))
    check_lines(form.price, parameters, spot.inside("price"))
    check_lines(form.cost_usd, parameters, spot.inside("cost_usd"))
    _check_fal_names(form, parameters, spot)
    if len(spot.problems) > known:
        return None
    model = _made(form, family, parameters)
    _check_example(model, spot)
    check_total(model, spot)
    return None if len(spot.problems) > known else model


def _parameters(written: Mapping[str, Any], vocabulary: Vocabulary, spot: Spot) -> Mapping[str, Parameter]:
    made = {name: vocabulary.parameter(name, own, spot.inside("parameters", name)) for name, own in written.items()}
    return {name: parameter for name, parameter in made.items() if parameter is not None}


def _made(form: ModelTable, family: str, parameters: Mapping[str, Parameter]) -> Model:
    listed = form.listed_price
    return Model(
        id=form.id,
        kind=form.type,
        family=family,
        title=form.title,
        description=form.description.words(),
        parameters=parameters,
        prices=[price_rule(line, parameters) for line in form.price],
        costs=[cost_rule(line, parameters) for line in form.cost_usd],
        shape=ResultShape(outputs=form.result.outputs, flags=form.result.flags),
        sources=form.sources,
        checked=form.checked,
        typical_seconds=(form.typical_seconds.from_seconds, form.typical_seconds.to_seconds),
        is_bounded_as_video=form.time_limit == "video",
        example=form.example,
        is_default=form.is_default,
        safety_switch=form.safety_switch,
        is_size_told=form.result_sizes != "untold",
        fixed=form.fixed,
        constraints=[_constraint(constraint) for constraint in form.constraints],
        listed_price=None if listed is None else ListedPrice(usd=listed.usd, unit=listed.unit),
        outputs_per_image_max=form.outputs_per_image_max,
        price_names={line.line: line.override for line in form.price if line.override is not None},
    )


def price_rule(table: PriceTable | CostTable, parameters: Mapping[str, Parameter]) -> PriceRule:
    """Of a line that was checked. What fal charges counts units alone, so that it has one token a unit."""
    return PriceRule(
        line=table.line,
        unit=table.per,
        tokens=table.tokens if isinstance(table, PriceTable) else 1,
        after=table.after,
        when={name: frozenset(values) for name, values in table.when.items()},
        factors={name: _by_value(parameters[name], factors) for name, factors in table.factors.items()},
        group=table.group or table.line,
        is_optional=table.is_optional,
    )


def cost_rule(table: CostTable, parameters: Mapping[str, Parameter]) -> CostRule:
    return CostRule(rule=price_rule(table, parameters), usd=table.usd, is_upper_bound=table.upper_bound)


def _constraint(table: ConstraintTable) -> Constraint:
    return Constraint(
        when={name: frozenset(values) for name, values in table.when.items()},
        require={name: frozenset(values) for name, values in table.require.items()},
        forbid=frozenset(table.forbid),
        message=table.message.words(),
    )


def _by_value(parameter: Parameter, factors: Mapping[str, Fraction]) -> Mapping[Hashable, Fraction]:
    """TOML takes texts alone as keys, whatever the values are."""
    by_text = {key_text(value): value for value in parameter.choices or ()}
    return {by_text[text]: factor for text, factor in factors.items()}


def _check_constraint(table: ConstraintTable, parameters: Mapping[str, Parameter], spot: Spot) -> None:
    if not table.require and not table.forbid:
        spot.say("says nothing: add `require` or `forbid`.")
    for key, named in (("when", table.when), ("require", table.require)):
        for name, values in named.items():
            if name not in parameters:
                spot.say(f"the model has no parameter `{name}`: {closest(name, list(parameters))}", key, name)
                continue
            for value in values:
                problem = problem_of(parameters[name], value)
                if problem is not None:
                    spot.say(f"{key_text(value)} is no value of `{name}`, which {problem}.", key, name)
    for name in table.forbid:
        if name not in parameters:
            spot.say(f"the model has no parameter `{name}`: {closest(name, list(parameters))}", "forbid")
        elif parameters[name].is_always_there:
            spot.say(f"`{name}` is always there, so that it cannot be forbidden: use `require`.", "forbid")


def _check_fal_names(form: ModelTable, parameters: Mapping[str, Parameter], spot: Spot) -> None:
    taken = dict.fromkeys(form.fixed, "fixed")
    if form.safety_switch in taken:
        spot.say("`fixed` has this field already: keep one.", "safety_switch")
    for name, parameter in parameters.items():
        if parameter.fal.name in taken:
            spot.say(
                f"fal's field `{parameter.fal.name}` is filled by `{taken[parameter.fal.name]}` already: keep one.",
                "parameters",
                name,
            )
        taken[parameter.fal.name] = name


def _check_example(model: Model, spot: Spot) -> None:
    spot = spot.inside("example")
    for name, value in model.example.items():
        if name not in model.parameters:
            spot.say(f"the model has no parameter `{name}`: {closest(name, list(model.parameters))}", name)
            continue
        problem = problem_of(model.parameters[name], value)
        if problem is not None:
            spot.say(f"`{name}` {problem}.", name)
    for name, parameter in model.parameters.items():
        if parameter.is_required and name not in model.example:
            spot.say(f"`{name}` is required: add it.")
    broken = model.violated(model.completed(model.example))
    if broken is not None:
        spot.say(f"is a combination that is known to fail. {broken.message['en']}")
