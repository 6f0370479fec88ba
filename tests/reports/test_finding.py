"""What a report says first: ranks, the finding in one sentence, what models are, what a suite is not for."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pytest

from helpers.views import view_run
from iqa_reports import StoredRun, leaderboard_table
from iqa_reports.finding import finding
from iqa_reports.formats.csv_table import csv_table
from iqa_reports.formats.latex import latex_table
from iqa_reports.formats.markdown import markdown_table
from iqa_reports.formats.page import html_table
from iqa_reports.formats.terminal import table_text
from iqa_reports.models_table import models_table
from iqa_reports.text import warning
from iqa_results import TABLE_SCHEMA


def sound(manifest: Any) -> Any:
    """The manifest with every check passed."""
    models = [m.model_copy(update={"checks": manifest.models[1].checks}) for m in manifest.models]
    return manifest.model_copy(update={"models": tuple(models)})


def ranked(values: dict[str, tuple[float, str | None, str]], make_run: Any, **changes: Any) -> StoredRun:
    """The view of models by (suite_min, ties, verdict)."""
    run = make_run()
    first = next(r for r in run.table.to_pylist() if (r["row"], r["metric"]) == ("suite_min", "srocc"))
    rows = [
        first | {"model": name, "value": worst, "ties_with": ties, "verdict": verdict}
        for name, (worst, ties, verdict) in values.items()
    ]
    model = run.manifest.models[1]
    models = tuple(model.model_copy(update={"name": name}) for name in values)
    manifest = run.manifest.model_copy(update={"models": models})
    return view_run(manifest, pa.Table.from_pylist(rows, schema=TABLE_SCHEMA), **changes)


CHAIN = {"c": (0.1, "b", "sound"), "a": (0.3, "b", "sound"), "b": (0.2, "a, c", "sound")}


def test_models_that_are_not_told_apart_share_a_rank(make_run: Any) -> None:
    """A rank is one more than the number of models told apart as better, though ties are no equivalence.

    The last place it may have is what the number told apart as worse leaves.
    """
    assert ranked(CHAIN, make_run).ranking() == [((1, 2), "a"), ((1, 3), "b"), ((2, 3), "c")]
    wide = {"a": (0.3, "c", "sound"), "b": (0.2, "c", "sound"), "c": (0.1, "a, b", "sound")}
    assert ranked(wide, make_run).ranking() == [((1, 2), "a"), ((1, 3), "c"), ((2, 3), "b")]
    alone = {"a": (0.3, "", "sound"), "b": (0.2, "", "sound"), "c": (0.2, "", "sound")}
    assert ranked(alone, make_run).ranking() == [((1, 1), "a"), ((2, 3), "b"), ((2, 3), "c")]
    equal = {"a": (0.3, "", "sound"), "b": (0.2, "c", "sound"), "c": (0.2, "b", "sound")}
    assert ranked(equal, make_run).ranking() == [((1, 1), "a"), ((2, 3), "b"), ((2, 3), "c")]


def test_models_that_were_not_compared_have_a_rank_without_places(make_run: Any) -> None:
    """Of several runs, and where one model's comparisons are not there."""
    plain = [((1, None), "a"), ((2, None), "b"), ((3, None), "c")]
    assert ranked(CHAIN, make_run, compared=False).ranking() == plain
    assert ranked(CHAIN | {"b": (0.2, None, "sound")}, make_run).ranking() == plain


def test_a_suspect_model_shares_no_rank_with_a_sound_one(make_run: Any) -> None:
    """Its value stands for a lower one, so that it is not told apart says nothing."""
    found = {"a": (0.3, "b, c", "sound"), "b": (0.2, "a, c", "suspect"), "c": (0.1, "a, b", "suspect")}
    assert ranked(found, make_run).ranking() == [((1, 1), "a"), ((2, 3), "b"), ((2, 3), "c")]
    above = {"a": (0.1, "b, c", "sound"), "b": (0.2, "a, c", "suspect"), "c": (0.3, "a, b", "suspect")}
    assert ranked(above, make_run).ranking() == [((1, 1), "a"), ((2, 3), "c"), ((2, 3), "b")]


@pytest.mark.parametrize("make", [table_text, markdown_table, html_table, csv_table, latex_table])
def test_every_format_shows_the_places_and_how_many_pairs_they_are_about(make_run: Any, make: Any) -> None:
    """As 1 (1-3); in CSV as columns of their own."""
    shown = make(leaderboard_table(ranked(CHAIN, make_run), "srocc"))
    assert "2,2,3,c," in shown if make is csv_table else all(f"({e})" in shown for e in ("1-2", "1-3", "2-3"))
    if make is not csv_table:
        words = " ".join(re.sub("<[^>]*>", "", shown).replace("\\%", "%").split())
        assert "Ranks in brackets: 3 models, 3 pairs, family-wise 95 %." in words.replace("~", " ")


@pytest.mark.parametrize(
    ("ties", "end"),
    [
        (None, "image by image."),
        ("", "image by image; it is told apart from every other one."),
        ("weak", "image by image; 1 other cannot be told apart from it."),
    ],
)
def test_the_finding_names_the_first_model_and_its_order(run: Any, ties: str | None, end: str) -> None:
    """Values of clean, suite_min and composed; of the order only what was compared."""
    rows = [r | {"ties_with": ties if r["model"] == "strong" else None} for r in run.table.to_pylist()]
    table = pa.Table.from_pylist(rows, schema=TABLE_SCHEMA)
    found = finding(view_run(sound(run.manifest), table))
    assert found.startswith(
        "At ε = 2/255 in the inf norm, the first of 2 models, strong, goes from SROCC 0.812 without attack "
        "to 0.303 under the suite's worst attack and to 0.201 when the adversary chooses"
    )
    assert found.endswith(end)
    assert finding(view_run(sound(run.manifest), table, compared=False)).endswith("image by image.")


def test_the_finding_is_none_where_nothing_is_ranked(run: Any) -> None:
    """Without a value to rank there is no best model."""
    found = finding(view_run(run.manifest, run.table.slice(0, 0)))
    assert found == "Nothing was found: none of 2 models has a value that can be ranked."


def test_the_models_table_says_what_the_cards_say(run: Any) -> None:
    """Training data from the card's notes, venue from the end of its source; what is not said is said so."""
    card = {
        "summary": "a hyper-network",
        "source": "Su et al., Blindly Assess, CVPR 2020",
        "notes": ["re-implemented", "trained on koniq10k (MOS), 7046 images"],
    }
    weak, strong = run.manifest.models
    weak = weak.model_copy(update={"card": card, "checkpoint": "models/hyper"})
    strong = strong.model_copy(
        update={"card": {"source": "Mixer, Technologies 14(3):145, 2026", "notes": []}}
    )
    manifest = run.manifest.model_copy(update={"models": (weak, strong)})
    table = models_table(view_run(manifest, run.table))
    said = {row[0].text: [entry.text for entry in row[1:]] for row in table.rows}
    assert said["weak"][:4] == [
        "koniq10k (MOS), 7046 images",
        "CVPR 2020",
        "Su et al., Blindly Assess",
        "a hyper-network",
    ]
    assert said["weak"][-1] == f"hyper, sha256 {'a' * 12}"
    assert said["strong"][:3] == ["not said", "Technologies 14(3):145, 2026", "Mixer"]


def test_a_suite_that_is_not_for_conclusions_says_so(make_run: Any) -> None:
    """What its own summary says it is not for is a warning; without that, or of damaged text, none is."""
    caveat = "The suite smoke says of itself: not for conclusions."
    for words, said in (
        ('summary = "all, in seconds; not for conclusions"', caveat),
        ('summary = "five radii; PGD"', None),
        ("summary = [", None),
        ('summary = "x"\na = ' + 5000 * "9", None),
        ('summary = "x"\na = ' + 5000 * "[" + 5000 * "]", None),
    ):
        assert warning(make_run(status="complete", suite_text=words).manifest) == said
