"""The catalogue: one file makes an attack, another package's entry points do, and what is wrong is named."""

import copy
import inspect
import sys

import pytest

import iqa_attacks
import iqa_suites
from helpers.attack_cases import Wavy, targets
from iqa_attacks import (
    BadAttackOption,
    Noise,
    ThreatModel,
    UnknownAttack,
    catalogue,
    create_attack,
    create_objective,
    list_attacks,
    list_objectives,
    objectives,
    register_attack,
)
from iqa_attacks.registry import Registry
from iqa_models.entry_points import load_group

ATTACK = '''
from dataclasses import dataclass
from typing import Annotated
from pydantic import Field
from iqa_attacks import PGD, Count, StepSize, register_attack

@register_attack
@dataclass(frozen=True, kw_only=True)
class Careful(PGD):
    """PGD that says how careful it is."""
    kind = "careful"
    care: Annotated[float, Field(ge=0, le=1)] = 0.5
'''
OBJECTIVE = """
from iqa_attacks import Objective

class Away(Objective):
    name = "away"
    def loss(self, scores, mos, clean):
        return (scores - mos).abs()
"""


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Install packages in a folder of this process alone: a module and its dist-info with entry points."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    for module, name in ((catalogue, "_ATTACKS"), (objectives, "_OBJECTIVES")):
        fresh = copy.deepcopy(getattr(module, name))
        fresh._complete = False
        monkeypatch.setattr(module, name, fresh)
    load_group.cache_clear()

    def install(module, source, entries):
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entries)

    yield install
    load_group.cache_clear()
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_another_package_s_attack_and_objective_are_found_by_name(packages):
    """An attack by its class or by the module that registers it; loaded at the first look-up, not before."""
    packages("careful_attack", ATTACK, "[iqa_harness.attacks]\ncareful = careful_attack\n")
    packages("away_objective", OBJECTIVE, "[iqa_harness.objectives]\naway = away_objective:Away\n")
    assert "careful_attack" not in sys.modules
    assert "careful" in list_attacks()
    assert "away" in list_objectives()
    attack = create_attack(
        "careful", threat=ThreatModel("inf", 0.05), objectives=("away",), steps=2, step_size=0.02, care=1
    )
    assert attack.run(Wavy().eval(), *targets()).found
    assert create_objective("away").name == "away"
    with pytest.raises(BadAttackOption, match="careful: care: Input should be less than or equal to 1"):
        create_attack(
            "careful", threat=ThreatModel("inf", 0.05), objectives=("away",), steps=2, step_size=0.02, care=2
        )


def test_a_broken_plug_in_is_named_and_the_rest_stays(packages):
    """One that cannot be imported, one that is no attack, one that takes another's name."""
    packages(
        "sundry_attacks",
        ATTACK + "\nnumber = 3\nclass Taken(Careful):\n    kind = 'pgd'\n",
        "[iqa_harness.attacks]\na = no_such_module\nb = sundry_attacks:number\nc = sundry_attacks:Taken\n"
        "d = sundry_attacks:Careful\n",
    )
    with pytest.warns(UserWarning) as caught:
        assert "careful" in list_attacks()
    said = [str(warning.message) for warning in caught]
    assert len(said) == 3
    assert "'a' (iqa_harness.attacks) of sundry_attacks is skipped" in said[0]
    assert "No module named 'no_such_module'" in said[0]
    assert "'b'" in said[1]
    assert "3 is no class of Attack" in said[1]
    assert "'c'" in said[2]
    assert "attack 'pgd' is taken" in said[2]


def test_a_new_file_in_the_package_is_all_it_takes(packages, tmp_path, monkeypatch):
    """A module of the package that nothing imports is found by the first look-up."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "brand_new.py").write_text(ATTACK.replace("careful", "brand_new"))
    monkeypatch.setattr(iqa_attacks, "__path__", [*iqa_attacks.__path__, str(folder)])
    assert "brand_new" in list_attacks()


def test_names_are_plain_and_taken_once():
    registry = Registry("thing", "name", object, group="no.such.group", taken=("clean",))
    one = type("One", (), {"name": "one"})
    registry.add(one)
    registry.add(one)
    with pytest.raises(BadAttackOption, match="thing 'one' is taken"):
        registry.add(type("Two", (), {"name": "one"}))
    for name, message in (("clean", "taken"), ("Bad Name", "lower case"), (3, "lower case")):
        with pytest.raises(BadAttackOption, match=message):
            registry.add(type("Two", (), {"name": name}))
    with pytest.raises(UnknownAttack, match="no thing 'ome', did you mean 'one'"):
        registry.find("ome")
    with pytest.raises(BadAttackOption, match="'clean' is taken"):
        register_attack(type("Clean", (Noise,), {"kind": "clean"}))


@pytest.mark.parametrize("package", [iqa_attacks, iqa_suites])
def test_every_name_a_package_imports_for_its_users_is_exported_and_documented(package):
    """In both directions: nothing public is left out of `__all__`, and what is in it says what it is."""
    public = {n for n, v in vars(package).items() if not n.startswith("_") and not inspect.ismodule(v)}
    assert public == set(package.__all__)
    for name in public:
        value = getattr(package, name)
        assert not (inspect.isclass(value) or inspect.isfunction(value)) or value.__doc__, name
