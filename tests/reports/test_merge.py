"""Runs of different days in one table: what may stand together, and under which names."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from iqa_reports import Inputs, StoredRun, build_report, group_runs, print_report, why_apart
from iqa_reports.leaderboard import leaderboard_markdown, write_leaderboard
from iqa_results import Selection

Make = Callable[..., Any]


def changed(run: StoredRun, **fields: Any) -> StoredRun:
    """The run with other fields in its manifest."""
    return dataclasses.replace(run, manifest=run.manifest.model_copy(update=fields))


def later(make_run: Make, **names: str) -> StoredRun:
    """A second run of the same suite and data, a day later."""
    run: StoredRun = make_run(run="second", ended="2026-11-23T01:00:00Z", **names).stored
    return run


def test_runs_of_one_suite_and_data_are_one_table(make_run: Make) -> None:
    """Models of both runs stand in one leaderboard, each with its own values, flags, costs and pictures."""
    runs = [make_run().stored, later(make_run, strong="third", weak="fourth")]
    (group,) = group_runs(runs)
    assert [m.name for m in group.merged.manifest.models] == ["fourth", "third", "weak", "strong"]
    assert group.merged.manifest.run == "second + first"
    assert len(group.merged.estimates) == 2 * len(runs[0].estimates)
    assert set(group.merged.costs) == {"weak", "strong", "third", "fourth"}
    assert {t.model for t in group.merged.triptychs} == {"weak", "fourth"}
    report = build_report(Inputs(runs, figures=False))
    (section,) = report.sections
    assert len(section.tables[0].rows) == 4
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    print_report(report, console, full=False)
    assert "`iqa-harness report second first --out FOLDER --full`" in shown.getvalue()
    assert "was not tested" in section.remarks[-1]


def test_a_model_in_two_runs_is_shown_once_from_the_later_run(make_run: Make) -> None:
    """Equal name and hash is one model: the run that ended later is shown, and it is said."""
    (group,) = group_runs([make_run().stored, later(make_run, weak="new")])
    assert [m.name for m in group.merged.manifest.models] == ["new", "strong", "weak"]
    assert group.dropped == ("strong is in first too; shown from the later second.",)
    assert len([e for e in group.merged.estimates if (e.model, e.row) == ("strong", "clean")]) == 2


def test_two_models_of_one_name_are_told_apart(make_run: Make) -> None:
    """Another hash is another model: both are shown, named with their run, in ties too."""
    second = later(make_run)
    models = tuple(m.model_copy(update={"sha256": "b" * 64}) for m in second.manifest.models)
    tied = tuple(e._replace(ties_with="strong") for e in second.estimates)
    second = dataclasses.replace(changed(second, models=models), estimates=tied)
    (group,) = group_runs([make_run().stored, second])
    names = {m.name for m in group.merged.manifest.models}
    assert names == {"weak (first)", "strong (first)", "weak (second)", "strong (second)"}
    ties = {e.ties_with for e in group.merged.estimates if e.model == "weak (second)"}
    assert ties == {"strong (second)"}


@pytest.mark.parametrize(
    ("field", "reason"),
    [("suite_sha256", "another suite"), ("data", "other images or labels"), ("split", "another split")],
)
def test_runs_that_differ_in_suite_or_data_are_never_in_one_table(
    make_run: Make, field: str, reason: str
) -> None:
    """They stand apart, and the report says what keeps them apart."""
    other = later(make_run, weak="fourth")
    data = other.manifest.data
    changes = {
        "suite_sha256": {"suite_sha256": "6" * 64},
        "data": {"data": data.model_copy(update={"sha256": "e" * 64})},
        "split": {"data": data.model_copy(update={"split": "val"})},
    }
    runs = [make_run().stored, changed(other, **changes[field])]
    groups = group_runs(runs)
    assert len(groups) == 2
    assert reason in why_apart(groups)[0]
    report = build_report(Inputs(runs, figures=False))
    assert [s.prefix for s in report.sections] == ["a1-", "a2-"]
    assert len({t.name for t in report.all_tables()}) == len(report.all_tables())


def test_a_limited_run_never_replaces_a_full_one(make_run: Make) -> None:
    """The later run of three images stands apart, and is told as such."""
    full = make_run().stored
    few = later(make_run)
    words = "the first 3 images of the 40 that the suite names"
    update = {"images": 3, "chosen": Selection(limit=3), "chosen_from": 40}
    few = changed(few, data=few.manifest.data.model_copy(update=update))
    groups = group_runs([full, few])
    assert [group.merged.manifest.run for group in groups] == ["first", "second"]
    assert why_apart(groups) == [f"Not comparable with first in store: second in store (only {words})."]
    assert "(all 40 images of its suite)" in why_apart(groups[::-1])[0]


def test_runs_with_other_surrogates_stand_apart(make_run: Make) -> None:
    """A transfer from other weights is another worst case; the same weights under another name are not."""
    runs = []
    for name, weights, run in (("a", "a", "first"), ("b", "a", "second"), ("a", "c", "third")):
        made = make_run(run=run, strong=name).stored
        models = tuple(
            m.model_copy(update={"sha256": (weights if m.name == name else "b") * 64})
            for m in made.manifest.models
        )
        cells = made.manifest.cells
        cells += (cells[0].model_copy(update={"attack": f"transfer:{name}"}),)
        runs.append(changed(made, models=models, cells=cells))
    groups = group_runs(runs)
    assert [{run.manifest.run for run in group.runs} for group in groups] == [{"first", "second"}, {"third"}]
    assert "(transfer from other models)" in why_apart(groups)[0]


def test_a_merged_run_is_complete_only_if_all_are(make_run: Make) -> None:
    """One partial run makes the merged one partial, and the warning counts over both."""
    complete = changed(later(make_run, weak="a", strong="b"), status="complete")
    (group,) = group_runs([make_run().stored, complete])
    assert group.merged.manifest.status == "partial"


def test_the_leaderboard_names_every_run_and_what_was_left_out(make_run: Make, tmp_path: Path) -> None:
    """Both files hold each group, each run with its day and machine, and what could not be read."""
    other = changed(later(make_run, weak="fourth"), suite_sha256="6" * 64, suite="other")
    inputs = Inputs([make_run().stored, other], papers=False, figures=False, unread=["x: damaged"])
    report = build_report(inputs)
    words = leaderboard_markdown(report).replace("\\", "")
    assert "2 groups of runs. Values of different groups cannot be compared" in words
    assert "## smoke on demo: first" in words
    assert "## other on demo: second" in words
    assert "second: 2 models, partial, started 2026-11-22T01:00:00Z, cpu on Linux, commit c0ffee" in words
    assert "Left out: x: damaged" in words
    page, markdown = write_leaderboard(report, tmp_path)
    assert (page.name, markdown.name) == ("leaderboard.html", "leaderboard.md")
    why = "Not comparable with second in store: first in store (another suite)."
    assert why in page.read_text(encoding="utf-8")


def test_the_leaderboard_warns_once(make_run: Make) -> None:
    """A run of chosen images notes what the warning says too; other notes stay."""
    run = make_run().stored
    data = run.manifest.data.model_copy(update={"chosen": Selection(3), "chosen_from": 40})
    notes = (f"computed from {data.selection}: not the suite's numbers", "no validation images")
    report = build_report(Inputs([changed(run, data=data, notes=notes)], papers=False, figures=False))
    words = leaderboard_markdown(report).replace("\\", "")
    assert words.casefold().count(notes[0]) == 1
    assert "> no validation images" in words
