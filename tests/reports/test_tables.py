"""What the tables say, whatever the format."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from helpers.views import view_run
from iqa_reports import (
    InconsistentRun,
    ModelCost,
    TableView,
    attack_table,
    checks_table,
    epsilon_table,
    flags_table,
    leaderboard_table,
)
from iqa_reports.formats.csv_table import csv_table
from iqa_reports.formats.latex import latex_table
from iqa_reports.formats.markdown import markdown_table
from iqa_reports.formats.page import html_table
from iqa_reports.formats.terminal import table_text
from iqa_reports.inputs.stored_run import reach_of
from iqa_reports.table_view import Entry, columns, label, stub
from iqa_reports.tables import SUSPECT, all_tables, transfer_table
from iqa_reports.text import checks, interval, number, radius, reading, signed, warning
from iqa_results import INTERVAL_SCHEMA, TABLE_SCHEMA, ModelRecord


def column(table: TableView, group: str, heading: int = 0) -> list[Entry]:
    """The entries of one column, top to bottom."""
    place = len(table.stub)
    for found in table.groups:
        if found.label == group:
            return [row[place + heading] for row in table.rows]
        place += len(found.headings)
    raise AssertionError(f"no group {group}")


def note(table: TableView, entry: Entry) -> str:
    """What the mark of an entry says."""
    return dict(table.notes)[entry.mark]


# Leaderboard ----------------------------------------------------------------------------------------


def sound(manifest: Any) -> Any:
    """The manifest with every check passed."""
    models = [m.model_copy(update={"checks": manifest.models[1].checks}) for m in manifest.models]
    return manifest.model_copy(update={"models": tuple(models)})


def test_the_leaderboard_is_ranked_by_suite_min(run: Any) -> None:
    """The model with the higher worst case stands first, whatever its clean value."""
    table = leaderboard_table(view_run(sound(run.manifest), run.table), "srocc")
    assert [(row[0].text, row[1].text) for row in table.rows] == [("1", "strong"), ("2", "weak")]


def test_a_model_that_failed_a_check_has_no_rank(run: Any) -> None:
    """A masked gradient looks like robustness: such a model stands last, with the reason."""
    table = leaderboard_table(view_run(run.manifest, run.table), "srocc")
    assert [(row[0].text, row[1].text) for row in table.rows] == [("1", "strong"), ("—", "weak")]
    assert note(table, table.rows[1][0]) == "not ranked: a check before the attack failed"


def test_the_leaderboard_shows_value_interval_drop_and_8bit(run: Any) -> None:
    """Every worst case stands with its interval, its drop against clean and its 8-bit value."""
    table = leaderboard_table(view_run(run.manifest, run.table), "srocc")
    clean, worst = column(table, "clean")[1], column(table, "suite_min")[1]
    assert (clean.text, clean.kind, clean.interval) == ("0.858", "number", "[0.758, 0.958]")
    assert (worst.text, worst.kind, worst.interval) == ("−0.394", "number", "[−0.494, −0.294]")
    drop = column(table, "suite_min", 1)[1]
    assert (drop.text, drop.interval) == ("−1.252", "[−1.352, −1.152]")
    assert column(table, "suite_min", 2)[1].text == "−0.389"
    assert column(table, "composed")[1].text == "−0.691"


def test_an_8bit_value_that_is_not_defined_is_marked(run: Any) -> None:
    """A row without 8-bit value shows a dash and says why."""
    table = leaderboard_table(view_run(run.manifest, run.table), "srocc")
    entry = column(table, "composed", 2)[0]
    assert (entry.text, note(table, entry)) == ("—", "no value after rounding to 8 bits is defined")


def test_an_undefined_value_is_named_with_its_reason(run: Any) -> None:
    """Value, drop and 8-bit of an undefined row say undefined and share one note."""
    table = leaderboard_table(view_run(run.manifest, run.table), "plcc")
    for heading in range(3):
        entry = column(table, "suite_min", heading)[1]
        assert (entry.text, entry.kind) == ("undefined", "undefined")
        assert note(table, entry) == "undefined: constant scores"
    assert column(table, "suite_min")[0].text == "0.313"


def test_a_model_without_any_row_is_listed_last_and_unranked(run: Any) -> None:
    """A model whose cells gave nothing is shown as missing, not left out."""
    left = run.table.filter(pa.compute.equal(run.table["model"], "strong"))
    table = leaderboard_table(view_run(sound(run.manifest), left), "srocc")
    assert [row[1].text for row in table.rows] == ["strong", "weak"]
    assert [entry.text for entry in table.rows[1][:3]] == ["—", "weak", "—"]
    assert note(table, table.rows[1][0]) == "not ranked: suite_min SROCC has no value"
    assert note(table, table.rows[1][2]) == "missing: not in the table of this run"


def test_equal_values_share_a_rank(run: Any) -> None:
    """Two models with one worst case are both first."""
    rows = [r | ({"value": 0.3} if r["row"] == "suite_min" else {}) for r in run.table.to_pylist()]
    table = leaderboard_table(
        view_run(sound(run.manifest), pa.Table.from_pylist(rows, schema=TABLE_SCHEMA)), "srocc"
    )
    assert [row[0].text for row in table.rows] == ["1", "1"]


def test_a_value_from_fewer_images_is_marked(run: Any) -> None:
    """A value of a part of the images says of how many."""
    rows = [r | {"images": 30} for r in run.table.to_pylist()]
    table = leaderboard_table(
        view_run(run.manifest, pa.Table.from_pylist(rows, schema=TABLE_SCHEMA)), "srocc"
    )
    entry = column(table, "suite_min")[0]
    assert note(table, entry) == "from 30 of 40 images: the rest is missing"


def test_failed_checks_are_named(run: Any) -> None:
    """The leaderboard says which check failed, or that all passed."""
    table = leaderboard_table(view_run(run.manifest, run.table), "srocc")
    assert [e.text for e in column(table, "Checks")] == ["all 2 checks passed", "1 of 2 failed: batch"]
    model = run.manifest.models[0]
    assert checks(model.model_copy(update={"checks": {}})) == "not recorded"
    with pytest.raises(ValidationError, match="valid dictionary"):  # no record holds what is no check
        ModelRecord.model_validate({**model.model_dump(), "checks": {"odd": None}})


def test_the_best_of_a_column_is_marked_and_so_is_what_is_not_told_apart_from_it(run: Any) -> None:
    """Bold by value; a dagger where the paired difference to the best may be zero."""
    rows = run.table.to_pylist()
    for row in rows:
        if (row["model"], row["row"], row["metric"]) == ("weak", "suite_min", "srocc"):
            row["ties_with"] = "other, strong"
    table = leaderboard_table(
        view_run(sound(run.manifest), pa.Table.from_pylist(rows, schema=TABLE_SCHEMA)), "srocc"
    )
    best, second = column(table, "suite_min")
    assert (best.best, second.best) == (True, False)
    assert second.mark == "†"
    assert "not told apart from the best" in note(table, second)
    assert [e.best for e in column(table, "clean")] == [False, True]
    assert "†" not in "".join(e.mark for e in column(table, "clean"))


@pytest.mark.parametrize(
    ("verdict", "ranks"),
    [("suspect", ["1", "2"]), ("incomplete", ["1", "—"]), ("invalid", ["1", "—"])],
)
def test_the_verdict_decides_who_is_ranked(run: Any, verdict: str, ranks: list[str]) -> None:
    """A suspect model is ranked last although a check failed, an invalid or incomplete one has no rank."""
    rows = [r | {"verdict": verdict if r["model"] == "weak" else "sound"} for r in run.table.to_pylist()]
    table = leaderboard_table(
        view_run(run.manifest, pa.Table.from_pylist(rows, schema=TABLE_SCHEMA)), "srocc"
    )
    assert [row[0].text for row in table.rows] == ranks
    assert [e.text for e in column(table, "Verdict")] == ["sound", verdict]
    if ranks[1] == "—":
        assert note(table, table.rows[1][0]) == f"not ranked: the verdict on its numbers is {verdict}"


@pytest.mark.parametrize("make", [table_text, markdown_table, html_table, csv_table, latex_table])
def test_a_suspect_model_comes_after_the_sound_ones_in_every_format(run: Any, make: Any) -> None:
    """Though its value is the higher one: behind them, marked, and not the best of any column."""
    rows = [r | {"verdict": "suspect" if r["model"] == "strong" else "sound"} for r in run.table.to_pylist()]
    view = view_run(run.manifest, pa.Table.from_pylist(rows, schema=TABLE_SCHEMA))
    assert [(rank.place, name) for rank, name in view.ranking()] == [(1, "weak"), (2, "strong")]
    table = leaderboard_table(view, "srocc")
    first, second = column(table, "suite_min")
    assert first.number < second.number
    assert (first.best, second.best) == (True, False)
    assert note(table, table.rows[1][0]) == SUSPECT
    assert "suspect: ranked after all others" in make(table)


def test_cost_is_shown_where_it_was_recorded(run: Any) -> None:
    """Gradients and seconds an image of each model; a dash with the reason for a model without them."""
    view = view_run(run.manifest, run.table, costs={"strong": ModelCost(1200, 3.25)})
    table = leaderboard_table(view, "srocc")
    assert [e.text for e in column(table, "Cost an image")] == ["1,200", "—"]
    assert [e.text for e in column(table, "Cost an image", 1)] == ["3.2", "—"]
    assert note(table, column(table, "Cost an image")[1]) == "cost was not recorded"


def test_transfer_is_a_matrix_of_models_and_surrogates(run: Any) -> None:
    """A column a surrogate, a row a model; no model is its own surrogate; without transfer no table."""
    assert transfer_table(view_run(run.manifest, run.table), "srocc") is None
    rows = run.table.to_pylist()
    attack = next(r for r in rows if r["row"] == "attack" and r["final"] and r["objective"] == "mse")
    rows += [
        attack | {"model": model, "attack": f"transfer:{other}", "steps": 10, "value": value}
        for model, other, value in (("strong", "weak", 0.55), ("weak", "strong", 0.25))
    ]
    view = view_run(run.manifest, pa.Table.from_pylist(rows, schema=TABLE_SCHEMA))
    table = transfer_table(view, "srocc")
    assert table is not None
    assert [g.label for g in table.groups] == ["clean", "from weak (mse)", "from strong (mse)"]
    assert [e.text for e in column(table, "from weak (mse)")] == ["0.550", "—"]
    assert [e.text for e in column(table, "from strong (mse)")] == ["—", "0.250"]
    assert note(table, column(table, "from weak (mse)")[1]) == "a model is no surrogate of itself"


def test_flags_are_listed_raised_ones_first(run: Any) -> None:
    """Every flag with value, threshold and where; a run that was not judged has no such table."""
    assert flags_table(view_run(run.manifest, run.table)) is None
    view = view_run(run.manifest, run.table, flags=run.stored.flags)
    table = flags_table(view)
    assert table is not None
    assert [e.text for e in table.rows[0]] == [
        "strong",
        "random as strong",
        "0.97",
        "0.5",
        "RAISED (suspect)",
        "pgd/mse at 2/255 <b>",
    ]
    answers = ["RAISED (suspect)", "not raised", "not measured", "not measured"]
    assert [row[4].text for row in table.rows] == answers * 2


# The other tables -----------------------------------------------------------------------------------


def test_every_attack_stands_by_itself(run: Any) -> None:
    """The attack table has the suite's members at full strength, none of the prefixes."""
    table = attack_table(view_run(run.manifest, run.table), "srocc")
    assert [g.label for g in table.groups] == ["pgd/mse", "pgd/drift"]
    assert [e.text for e in column(table, "pgd/mse")] == ["0.303", "−0.394"]
    assert [e.text for e in column(table, "pgd/drift")] == ["0.503", "−0.194"]


def test_attacks_outside_the_minimum_are_named(make_run: Callable[..., Any]) -> None:
    """An attack that is no member of suite_min is shown, and said not to be one."""
    run = make_run(suite_min=("pgd/mse",))
    table = attack_table(view_run(run.manifest, run.table), "srocc")
    assert table.notes == (("", "not members of suite_min: pgd/drift"),)


def test_a_member_without_rows_keeps_its_column(make_run: Callable[..., Any]) -> None:
    """A member of suite_min that has no value yet is a column of dashes with the reason."""
    run = make_run(suite_min=("pgd/mse", "fgsm/mse"))
    table = attack_table(view_run(run.manifest, run.table), "srocc")
    entry = column(table, "fgsm/mse")[0]
    assert (entry.text, note(table, entry)) == ("—", "missing: not in the plan of this run")


def test_a_failed_cell_leaves_a_marked_hole(run: Any) -> None:
    """A radius whose cell failed shows a dash and the cell's error."""
    table = epsilon_table(view_run(run.manifest, run.table), "srocc")
    assert [g.label for g in table.groups] == ["clean", "ε = 2/255", "ε = 4/255"]
    entries = column(table, "ε = 4/255")
    assert [e.text for e in entries] == ["0.303", "0.201", "—", "—"]
    assert note(table, entries[2]) == "missing: 1 of 1 cell failed (out of memory)"


def test_a_cell_not_computed_yet_says_so(make_run: Callable[..., Any], run: Any) -> None:
    """A radius whose cell is still missing is told from one that failed."""
    cells = [c.model_copy(update={"status": "missing"}) if c.error else c for c in run.manifest.cells]
    view = view_run(make_run(cells=tuple(cells)).manifest, run.table)
    table = epsilon_table(view, "srocc")
    assert note(table, column(table, "ε = 4/255")[2]) == "missing: 1 of 1 cell not computed yet"


def test_checks_are_listed_with_value_threshold_and_detail(run: Any) -> None:
    """The table of checks holds what was measured and what was allowed."""
    table = checks_table(view_run(run.manifest, run.table))
    assert [e.text for e in table.rows[1]] == [
        "weak",
        "batch",
        "3.1e−07",
        "1e−05",
        "FAILED",
        "score alone = score in a batch",
    ]


def test_every_caption_says_what_the_labels_are(make_run: Callable[..., Any]) -> None:
    """Pseudo-MOS is named in every table's caption; with human labels MOS is."""
    run = make_run()
    for table in all_tables(view_run(run.manifest, run.table)):
        assert "labels are pseudo-MOS, computed and not given by people" in table.caption
    people = run.manifest.model_copy(update={"data": run.manifest.data.model_copy(update={"label": "MOS"})})
    for table in all_tables(view_run(people, run.table)):
        assert "labels are MOS" in table.caption
        assert "pseudo" not in table.caption


# Selection ------------------------------------------------------------------------------------------


def test_the_step_sweep_runs_up_to_full_strength(run: Any) -> None:
    """A line an objective, by rising steps, the last point being the attack's own value."""
    lines = view_run(run.manifest, run.table).step_lines("weak")
    assert list(lines) == ["mse", "drift"]
    assert [e.steps for e in lines["mse"]] == [1, 5, 10]
    assert lines["mse"][-1].value == -0.394


def test_worst_cases_join_the_sweep_only_if_they_were_swept(run: Any) -> None:
    """A suite_min at full strength alone is a point, not a line."""
    rows = run.table.to_pylist()
    swept = next(r for r in rows if r["model"] == "weak" and r["row"] == "suite_min")
    rows.append(swept | {"steps": 5, "final": False, "value": 0.1})
    view = view_run(run.manifest, pa.Table.from_pylist(rows, schema=TABLE_SCHEMA))
    label, points = list(view.step_lines("weak").items())[-1]
    assert (label, [(e.steps, e.value) for e in points]) == ("suite_min", [(5, 0.1), (10, -0.394)])


def test_reachable_intervals_come_by_rising_mos(run: Any) -> None:
    """Images of one model at one radius, worst label first."""
    rows = reach_of(run.intervals, "weak", 2 / 255)
    assert len(rows) == 40
    assert [r.mos for r in rows] == sorted(r.mos for r in rows)
    assert reach_of(run.intervals, "weak", 1 / 255) == []


def test_two_rows_for_one_value_are_refused(run: Any) -> None:
    """A report never picks one of two values in silence."""
    double = pa.concat_tables([run.table, run.table])
    with pytest.raises(InconsistentRun, match="2 rows for"):
        leaderboard_table(view_run(run.manifest, double), "srocc")
    with pytest.raises(InconsistentRun, match="two values at one number of steps"):
        view_run(run.manifest, double).step_lines("weak")


def test_a_table_of_other_models_is_refused(make_run: Callable[..., Any], run: Any) -> None:
    """A table with a model the manifest does not name is not this run's."""
    with pytest.raises(InconsistentRun, match=r"does not name: \['weak'\]"):
        view_run(make_run(weak="other").manifest, run.table)


def test_intervals_of_another_schema_are_refused(run: Any) -> None:
    """The table in their place is named as the mistake."""
    with pytest.raises(InconsistentRun, match="the interval table has other columns"):
        reach_of(run.table, "weak", 2 / 255)


def test_two_norms_in_one_report_are_refused(run: Any) -> None:
    """A radius means nothing without its norm: a report shows one."""
    other = run.table.to_pylist()[1] | {"norm": "2", "epsilon": 1.0}
    mixed = pa.concat_tables([run.table, pa.Table.from_pylist([other], schema=TABLE_SCHEMA)])
    with pytest.raises(InconsistentRun, match="one norm"):
        view_run(run.manifest, mixed)


def test_a_run_without_any_value_is_still_a_report(run: Any) -> None:
    """A run whose cells all failed gives tables of dashes."""
    empty = view_run(run.manifest, TABLE_SCHEMA.empty_table())
    for table in all_tables(empty):
        assert len(table.rows) >= 2
    assert reach_of(INTERVAL_SCHEMA.empty_table(), "weak", 2 / 255) == []


# Words ----------------------------------------------------------------------------------------------


def test_numbers_have_three_decimals_and_a_true_minus() -> None:
    """Zero has no sign, a difference always has one."""
    assert [number(v) for v in (0.8584, -0.3936, -0.0001, 1.0)] == ["0.858", "−0.394", "0.000", "1.000"]
    assert [signed(v) for v in (0.0123, -0.5, -0.0001)] == ["+0.012", "−0.500", "0.000"]
    assert interval(-0.5, 0.25) == "[−0.500, 0.250]"


@pytest.mark.parametrize(
    ("epsilon", "words"),
    [
        (2 / 255, "2/255"),
        (0.25 / 255, "0.25/255"),
        (0.03, "0.03"),
        (0.0314159, "0.03142"),
        (1.0, "1"),
        (1e308, "1e+308"),
    ],
)
def test_radii_are_written_in_grey_levels_where_they_are_some(epsilon: float, words: str) -> None:
    """A radius is n/255 where n is a multiple of a quarter, else plain."""
    assert radius(epsilon) == words


def test_a_run_that_is_not_complete_says_how_much_is_missing(run: Any) -> None:
    """The warning counts missing and failed cells; a complete run has none."""
    assert "0 of 6 cells missing, 1 failed" in (warning(run.manifest) or "")
    assert warning(run.manifest.model_copy(update={"status": "complete"})) is None


def test_the_reading_names_the_members_and_the_lack_of_transfer(make_run: Callable[..., Any]) -> None:
    """suite_min is explained by its members, and a missing transfer attack is said plainly."""
    words = " ".join(reading(make_run().manifest))
    assert "among pgd/mse, pgd/drift" in words
    assert "No transfer attack is among them" in words
    with_transfer = make_run(suite_min=("pgd/mse", "transfer/mse"))
    assert "No transfer attack" not in " ".join(reading(with_transfer.manifest))


def test_importing_reports_does_not_import_matplotlib() -> None:
    """The command line starts without loading a drawing library."""
    code = "import sys, iqa_reports; sys.exit('matplotlib' in sys.modules)"
    path = [p for p in sys.path if p]
    script = f"import sys; sys.path[:0] = {path!r}\n{code}"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_terminal_cuts_no_number(width):
    """Names give way, down to eight columns; what does not fit then makes the line longer."""
    row = (*map(label, ("a long name of a data set", "test", "a_model_with_a_long_name")),
           Entry("−0.0920", "number", interval="[−0.1157, 0.3242]"), Entry("−0.0563", "number"))  # fmt: skip
    groups = (columns("SROCC"), columns("KROCC"))
    told = table_text(TableView("sets", "", stub("data", "split", "model"), groups, (row,), ()), width)
    assert [word in told for word in ("−0.0920", "[−0.1157, 0.3242]", "−0.0563")] == [True] * 3
    assert "a_model" in told
    assert width < 80 or max(map(len, told.splitlines())) <= width
