"""Every method: settings that can be told apart, refused and traced, and a page."""

from collections.abc import Iterator
from typing import Any

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError

from alpacafarm_core import pages
from alpacafarm_core.methods import METHODS
from alpacafarm_core.settings import Fitting, Training
from alpacafarm_core.values import Value

NAMES = sorted(METHODS)


def outside(of: Value, before: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their path, at any depth, each with a value just beyond its bound."""
    for name, field in type(of).model_fields.items():
        held, where = getattr(of, name), f"{before}{name}"
        yield from ((where, beyond) for beyond in _beyond(field.metadata))
        if isinstance(held, Value):
            yield from outside(held, f"{where}.")


def changed(of: Value, where: str, value: Any) -> dict[str, Any]:
    """The fields of some settings, one of them, at any depth, with another value."""
    name, _, rest = where.partition(".")
    held = changed(getattr(of, name), rest, value) if rest else value
    return of.model_dump() | {name: held}


def _beyond(bounds: list[Any]) -> list[Any]:
    found: list[Any] = []
    for bound in bounds:
        match bound:
            case Ge(ge=least):
                found.append(least - 1)
            case Gt(gt=least):
                found.append(least)
            case Le(le=most):
                found.append(most + 1)
            case Lt(lt=most):
                found.append(most)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_method_is_settings_that_survive_json(name):
    for scale in ("smoke", "small", "paper"):
        method = METHODS[name].at(scale)
        assert METHODS[name].model_validate_json(method.model_dump_json()) == method


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_reaches_every_seed_of_a_method(name):
    assert '"seed":42' not in METHODS[name]().seeded(7).model_dump_json()


def test_a_seed_that_was_chosen_is_kept():
    chosen = Fitting(training=Training(seed=3)).seeded(7)
    assert (chosen.seed, chosen.training.seed) == (7, 3)


@pytest.mark.parametrize("name", NAMES)
def test_at_the_papers_scale_a_method_is_its_defaults(name):
    assert METHODS[name].at("paper") == METHODS[name]()


@pytest.mark.parametrize("name", NAMES)
def test_every_default_has_a_source(name):
    assert [where for where, _, _, source in pages.settings(METHODS[name]) if not source] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_source_is_of_a_setting(name):
    known = {where for where, _, _, _ in pages.settings(METHODS[name])}
    for told in METHODS[name].sources:
        assert any(where == told or where.startswith(f"{told}.") for where in known), told


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_setting_is_refused_by_name(name):
    with pytest.raises(ValidationError, match="betta"):
        METHODS[name].model_validate({"betta": 1})


@pytest.mark.parametrize("name", NAMES)
def test_a_value_out_of_range_is_refused_with_the_fields_name(name):
    method = METHODS[name]()
    bounded = list(outside(method))
    assert bounded
    for where, value in bounded:
        with pytest.raises(ValidationError) as refused:
            type(method).model_validate(changed(method, where, value))
        places = [[str(part) for part in each["loc"]] for each in refused.value.errors()]
        path = where.split(".")
        # Where a setting is one of several kinds, the kind stands in between.
        assert any([part for part in place if part in path] == path for place in places), where


@pytest.mark.parametrize("name", NAMES)
def test_the_page_of_a_method_is_as_its_source(name):
    page = pages.FOLDER / f"{name}.md"
    assert page.is_file(), "run `python -m alpacafarm_core.pages`"
    assert page.read_text().startswith(pages.page(METHODS[name]))


def test_the_list_of_methods_is_as_the_folder():
    assert (pages.FOLDER / pages.LIST).read_text() == pages.index()


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_what_was_seen_and_what_was_not(name):
    below = (pages.FOLDER / f"{name}.md").read_text().partition(pages.END)[2]
    shown, _, missing = below.partition("## What it does not show")
    assert len(shown.split()) > 8 and len(missing.split()) > 3
