"""The smallest radii as a reader sees them: worded, cut off where they are, apart from a suite's own."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from helpers.views import view_run
from iqa_reports.inputs.stored_run import Member, StoredRun
from iqa_reports.radii import members, radii_figure, radii_table
from iqa_results import Measure

LARGEST = 16 / 255


def _measures(model: str, radii: list[float | None], objective: str = "raise") -> list[Measure]:
    """Rows as the harness writes them: None is beyond the largest radius."""
    found = sorted(radius for radius in radii if radius is not None)
    place = (model, "minimum", objective, "inf")
    ordered = [*found, *[None] * (len(radii) - len(found))]
    values = {
        "radius_median": ordered[len(radii) // 2],
        "radius_low": ordered[0],
        "radius_high": ordered[-1],
        "radius_missed": 1 - len(found) / len(radii),
        "radius_kept_8bit": 0.5,
    }
    rows = [
        Measure(*place, LARGEST, 20, True, name, value, None if value is not None else "beyond")
        for name, value in values.items()
    ]
    rows += [
        Measure(*place, r, 20, True, "moved_share", (i + 1) / len(radii), None) for i, r in enumerate(found)
    ]
    return [*rows, Measure(model, "minimum", "all", "inf", LARGEST, 20, True, "backwards", 39.0, None)]


@pytest.fixture
def view(make_run: Callable) -> StoredRun:
    """Two models: one moved within half a level everywhere, one on a third of the images."""
    run = make_run()
    minimum = [
        cell.model_copy(update={"attack": "minimum", "epsilon": LARGEST}) for cell in run.manifest.cells
    ]
    manifest = run.manifest.model_copy(update={"cells": (*run.manifest.cells, *minimum)})
    radii = _measures("weak", [0.0, 0.4 / 255, 0.5 / 255]) + _measures("strong", [12 / 255, None, None])
    return view_run(manifest, run.table, radii=tuple(radii))


def test_the_table_words_radii_and_what_is_beyond_them(view: StoredRun) -> None:
    table = radii_table(view)
    assert table is not None
    rows = {row[0].text: row for row in table.rows}
    assert rows["weak"][1].text == "up by one IQR"
    assert (rows["weak"][2].text, rows["weak"][2].interval) == ("0.4/255", "[0/255, 0.5/255]")
    assert rows["weak"][2].number == pytest.approx(0.4 / 255)
    assert (rows["strong"][2].text, rows["strong"][2].interval) == ("> 16/255", "[12/255, > 16/255]")
    assert rows["strong"][2].number is None and rows["strong"][2].bounds is None
    assert [rows[m][3].text for m in ("weak", "strong")] == ["0.0%", "66.7%"]
    assert rows["weak"][5].text == "39"
    assert any("beyond the largest radius tried" in note for _, note in table.notes)


def test_its_largest_radius_is_none_of_the_suite_s(view: StoredRun) -> None:
    """No column of worst cases for a ball in which nobody looked for one."""
    assert all(not math.isclose(epsilon, LARGEST) for epsilon in view.epsilons())
    assert members(view) == [Member("minimum", "raise")]


def test_the_curve_rises_by_an_image_at_its_radius(view: StoredRun) -> None:
    """A line a model, in grey levels; an image there already is moved from the left end on."""
    figure = radii_figure(view, Member("minimum", "raise"))
    assert figure is not None
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[0].get_lines()}
    weak, strong = lines["weak"].tolist(), lines["strong"].tolist()
    assert [share for _, share in weak] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert [radius for radius, _ in weak[1:3]] == pytest.approx([0.4, 0.5])
    assert [share for _, share in strong] == pytest.approx([0, 1 / 3, 1 / 3])
    assert figure.axes[0].get_xscale() == "log"
    assert radii_figure(view, Member("minimum", "lower")) is None


def test_a_run_without_such_an_attack_has_no_table_of_it(run) -> None:  # type: ignore[no-untyped-def]
    assert radii_table(view_run(run.manifest, run.table)) is None
    assert "radii" not in {table.name for table in run.report(figures=False).all_tables()}
