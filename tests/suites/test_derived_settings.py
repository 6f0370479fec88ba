"""A suite's settings of an attack are the attack's own: a new attack needs no line in `iqa_suites`."""

import copy
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from iqa_attacks import (
    PGD,
    AtSomeRadii,
    Attack,
    Count,
    Effort,
    NoKey,
    StepSize,
    catalogue,
    list_attacks,
    register_attack,
    settings_of,
)
from iqa_attacks.catalogue import find_attack
from iqa_models.entry_points import load_group
from iqa_suites import (
    BadSuite,
    UnknownSuite,
    list_kinds,
    list_suites,
    load_suite,
    loader,
    parse_suite,
    settings_class,
)

SMOKE = load_suite("smoke").text
COMMON = {"name", "kind", "norm", "epsilons", "pixels", "ssim_floor", "objectives"}


@dataclass(frozen=True, kw_only=True)
class Probing(Attack):
    """An attack of somebody else's, with a setting of every sort."""

    kind = "probing"
    only_objectives = ("raise", "lower")
    image_by_image = True
    rounds: Count
    stride: Annotated[float, StepSize(share_key="relative_stride")]
    reach: Annotated[float, StepSize(share=0.5)]
    mode: Literal["wide", "fine"] = "wide"
    stops: Annotated[tuple[int, ...], AtSomeRadii("stop_epsilons")] = ()
    decay: Annotated[float | None, Field(ge=0)] = None
    hidden: Annotated[int, NoKey()] = 3

    @property
    def effort(self) -> Effort:
        return Effort(self.rounds, self.stride, 1)

    def search(self, model, targets, draws, chunk):
        raise NotImplementedError


@pytest.fixture
def probing(monkeypatch):
    monkeypatch.setattr(catalogue, "_ATTACKS", copy.deepcopy(catalogue._ATTACKS))
    register_attack(Probing)


def _suite(keys: str) -> str:
    table = f"""
[[attacks]]
name = "own"
kind = "probing"
epsilons = ["1/255", "2/255"]
objectives = ["raise"]
{keys}
"""
    return SMOKE + table


def test_an_attack_that_is_registered_is_taken_by_suites(probing):
    """With shares, fractions and radii as for ours, its defaults, and a hash of its own."""
    suite = parse_suite(
        _suite('rounds = 3\nrelative_stride = 0.25\nstops = [1]\nstop_epsilons = ["2/255"]\ndecay = 0.5'),
        "mine",
    )
    settings = suite.own_attacks[-1]
    assert {s.name for s in settings_of(Probing)} - set(type(settings).model_fields) == {
        "seed", "eot_samples", "hidden"
    }  # fmt: skip
    made = [settings.attack(epsilon, 5, 9) for epsilon in settings.epsilons]
    for attack, epsilon, stops in zip(made, (1 / 255, 2 / 255), ((), (1,)), strict=True):
        assert attack == Probing(
            threat=settings.threat(epsilon), objectives=("raise",), seed=5, eot_samples=9, rounds=3,
            stride=0.25 * epsilon, reach=0.5 * epsilon, stops=stops, decay=0.5,
        )  # fmt: skip
    again = parse_suite(
        _suite('rounds = 3\nrelative_stride = 0.25\nstops = [1]\nstop_epsilons = ["2/255"]'), "m"
    )
    assert again.sha256 != suite.sha256
    stated = parse_suite(_suite('rounds = 3\nstride = "1/255"\nreach = "1/255"'), "mine").own_attacks[-1]
    assert stated.attack(1 / 255, 0).stride == stated.attack(2 / 255, 0).reach == 1 / 255


TWO = "rounds = 3\nrelative_stride = 0.1\n"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("rounds = 3", "attacks.2: give exactly one of stride and relative_stride"),
        ('rounds = 3\nstride = 0.001\nrelative_stride = 0.1', "exactly one of stride and relative_stride"),
        ("rounds = 0\nrelative_stride = 0.1", "attacks.2.rounds: Input should be greater than or equal to 1"),
        ("rounds = true\nrelative_stride = 0.1", "attacks.2.rounds: Input should be a valid integer"),
        ("rounds = 3\nrelative_stride = 9", "probing: stride 0.0352941 is more than twice the radius"),
        (TWO + 'mode = "wild"', "attacks.2.mode: Input should be 'wide' or 'fine'"),
        (TWO + "round = 4", "attacks.2.round: unknown key, did you mean 'rounds'"),
        (TWO + "hidden = 4", "attacks.2.hidden: unknown key"),
        (TWO + "batch = 4", "probing attacks image by image: leave batch out"),
        (TWO + 'stop_epsilons = ["2/255"]', "where stops are reported: give both"),
        (TWO + 'stops = [1]\nstop_epsilons = ["3/255"]', "not among the attack's"),
    ],
)  # fmt: skip
def test_a_mistake_in_somebody_else_s_attack_is_told_like_one_in_ours(probing, keys, message):
    with pytest.raises(BadSuite) as caught:
        parse_suite(_suite(keys), "mine")
    assert message in str(caught.value)


def test_an_attack_that_is_no_more_is_unknown(probing, monkeypatch):
    text = _suite("rounds = 3\nrelative_stride = 0.25")
    parse_suite(text, "mine")
    monkeypatch.undo()
    with pytest.raises(BadSuite, match="no attack 'probing'"):
        parse_suite(text, "mine")


def test_settings_are_those_the_attacks_declare():
    """Every field of an attack is a key; every key that is no suite's own is a field or made of one."""
    for kind in list_attacks():
        derived = {
            key
            for setting in settings_of(find_attack(kind))
            for key in (
                getattr(setting.mark(StepSize), "share_key", None),
                getattr(setting.mark(AtSomeRadii), "key", None),
            )
            if key
        }
        declared = {s.name for s in settings_of(find_attack(kind)) if s.mark(NoKey) is None}
        keys = {field.alias or name for name, field in settings_class(kind).model_fields.items()}
        assert keys == COMMON | declared | derived, kind
    assert list_kinds() == sorted([*list_attacks(), "ensemble", "transfer"])


def test_the_readme_names_every_key_of_every_kind():
    """Its table is what a user writes from; keys that all kinds have stand below it."""
    text = (Path(__file__).parents[2] / "suites" / "README.md").read_text()
    rows = {m[1]: m[2] for m in re.finditer(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE)}
    common = set(settings_class("fgsm").model_fields)
    for kind in list_kinds():
        row = rows.get(kind, "")
        told = set(re.findall(r"`(\w+)", row + (rows["pgd"] if "those of `pgd`" in row else "")))
        own = {f.alias or n for n, f in settings_class(kind).model_fields.items()} - common
        assert own <= told, kind
    assert all(f"`{key}" in text for key in common - {"name", "kind"})


def test_pgd_keeps_its_conveniences():
    """Among what PGD declares for suites: a share of the radius and radii at which prefixes are reported."""
    assert {"relative_step_size", "report_epsilons"} <= set(settings_class("pgd").model_fields)
    assert settings_class("pgd") is settings_class("pgd")
    assert settings_class("pgd").attack_class is PGD


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Install packages with suites in a folder of this process alone."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    load_group.cache_clear()
    loader._texts.cache_clear()

    def install(name, entries, **content):
        folder = tmp_path / name
        folder.mkdir()
        for file, text in content.items():
            (
                folder / file.replace("__", ".", 1) if file != "__init__" else folder / "__init__.py"
            ).write_text(text)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[iqa_harness.suites]\n{entries}\n")
        return folder

    yield install
    load_group.cache_clear()
    loader._texts.cache_clear()
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_suites_of_other_packages_are_found_by_name(packages):
    """A package with TOML files, a folder, a file and a text."""
    mine = {name: SMOKE.replace('name = "smoke"\nsummary', f'name = "{name}"\nsummary') for name in "abcd"}
    source = "from pathlib import Path\nhere = Path(__file__).parent\n"
    source += "folder, file = here / 'more', str(here / 'c.txt')\n"
    folder = packages(
        "suite_package",
        "all = suite_package\nfolder = suite_package:folder\nc = suite_package:file\nd = suite_package:text",
        __init__=source + f"text = {mine['d']!r}\n",
        a__toml=mine["a"],
        c__txt=mine["c"],
    )
    (folder / "more").mkdir()
    (folder / "more" / "b.toml").write_text(mine["b"])
    assert set("abcd") < set(list_suites())
    for name in "abcd":
        assert load_suite(name).suite.name == name
        assert load_suite(name).text == mine[name]
    with pytest.raises(UnknownSuite, match="smoke"):
        load_suite("e")


def test_a_broken_suite_of_another_package_is_named_and_the_rest_stays(packages):
    """What is no suite, what is invalid, and what takes the name of another."""
    packages(
        "bad_suites",
        "all = bad_suites\ngone = bad_suites:gone\nnumber = bad_suites:number",
        __init__="gone, number = '/no/such/file.toml', 3\n",
        smoke__toml=SMOKE,
        wrong__toml="seed = 'x'",
        right__toml=SMOKE,
    )
    with pytest.warns(UserWarning) as caught:
        assert "right" in list_suites()
    said = "\n".join(sorted(str(warning.message) for warning in caught))
    assert len(caught) == 4
    for words in (
        "entry point 'all' (iqa_harness.suites): its suite 'smoke' is skipped: another suite has that name",
        "its suite 'wrong' is skipped: suite 'wrong': ",
        "entry point 'gone' (iqa_harness.suites) is skipped: /no/such/file.toml: cannot be read",
        "entry point 'number' (iqa_harness.suites) is skipped: int is no package, path or TOML text",
    ):
        assert words in said
    assert load_suite("smoke").suite.sha256.startswith("f8d7586ea1b253d6")
