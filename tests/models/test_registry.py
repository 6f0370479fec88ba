"""The registry: one name, one builder; a wrong name or option is answered with the nearest one."""

import importlib
import inspect
import pkgutil
from typing import NamedTuple

import pytest

import iqa_models
from iqa_models import (
    BadModelOption,
    UnknownModel,
    create_model,
    describe_model,
    has_random_head,
    list_models,
    register_model,
)
from iqa_models.index import ADAPTERS, OWN
from iqa_models.registry import _BUILDERS, find_builder, takes


def test_a_name_can_be_taken_once():
    """Registering a second builder under a taken name is refused and leaves the first in place."""
    with pytest.raises(ValueError, match="'linear' is registered already"):
        register_model("linear")(lambda: create_model("linear"))
    assert create_model("linear").spec.name == "linear"


def test_names_are_sorted_and_filtered_by_a_shell_pattern():
    """list_models returns sorted names, and only those a pattern matches."""
    assert list_models() == sorted(list_models())
    assert {"demo_lite0", "demo_resnet10t", "linear", "timm_regressor"} <= set(list_models())
    assert list_models("demo_l*") == ["demo_lite0"]
    assert list_models("nothing*") == []


@pytest.mark.parametrize("name", list_models())
def test_every_model_says_what_it_is_without_being_built(name):
    """Every builder's docstring begins with one line that can stand in a list."""
    assert 10 < len(describe_model(name)) < 120


def test_an_unknown_name_is_answered_with_the_nearest():
    """A misspelt model name raises UnknownModel and names the nearest one."""
    with pytest.raises(UnknownModel, match=r"no model 'demo_lite', did you mean 'demo_lite0'\?"):
        create_model("demo_lite")
    with pytest.raises(UnknownModel):
        describe_model("demo_lite")


def test_an_unknown_option_is_answered_with_the_nearest():
    """A misspelt option raises BadModelOption, names the nearest and lists what the builder takes."""
    with pytest.raises(
        BadModelOption, match=r"no option 'backbon', did you mean 'backbone'\?.*takes: backbone, pretrained"
    ):
        create_model("timm_regressor", backbon="resnet10t")


class Shared(NamedTuple):
    """Options of a family."""

    side: int = 3
    seed: int = 0


def test_options_that_a_builder_passes_on_are_seen():
    """Each field of its family stands in its signature with the family's default, behind its own options."""

    @takes(Shared(side=5))
    def closed(*, own: int = 1, **shared):
        return own, shared

    @takes(Shared(), and_more=True)
    def opened(**shared):
        return shared

    seen = inspect.signature(closed).parameters
    assert {name: option.default for name, option in seen.items()} == {"own": 1, "side": 5, "seed": 0}
    assert all(option.kind is option.KEYWORD_ONLY for option in seen.values())
    assert list(inspect.signature(opened).parameters) == ["side", "seed", "shared"]
    assert closed(side=2) == (1, {"side": 2})


def test_a_number_that_no_tensor_holds_is_refused_in_few_words():
    """A card may say a number of 400 digits."""
    with pytest.raises(
        BadModelOption, match=r"'linear' cannot be built with scale=1000+: int too big"
    ) as said:
        create_model("linear", scale=10**400)
    assert len(str(said.value)) < 300


@pytest.mark.parametrize("name", OWN)
def test_the_index_says_what_the_builders_say(name):
    """Where it stands and the first line of its docstring."""
    builder = find_builder(name)
    assert OWN[name] == (
        builder.__module__.removeprefix("iqa_models."),
        inspect.getdoc(builder).split("\n")[0],
    )


def test_every_model_of_the_package_is_in_the_index():
    """After all modules of the package were imported, no other of them is registered."""
    for module in pkgutil.walk_packages(iqa_models.__path__, "iqa_models."):
        importlib.import_module(module.name)
    ours = {name for name, builder in _BUILDERS.items() if builder.__module__.startswith("iqa_models.")}
    assert ours == set(OWN)


@pytest.mark.parametrize("name", OWN)
def test_models_to_be_trained_say_so(name):
    """All are registered as random until trained, but the yardstick, the cheats and what is others'."""
    others = name in ADAPTERS or name == "linear" or name.startswith("cheat_")
    assert has_random_head(name) == (not others)


def test_a_users_model_is_its_own_affair():
    """A model registered without a word on its head is taken to be as its author wants it."""
    assert not has_random_head("somebody's")
