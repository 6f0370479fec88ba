"""The page as a reader meets it: headless Chromium, narrow and wide, light and dark, keyboard only."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iqa_reports import Inputs, Report, build_report, render_report

pytestmark = pytest.mark.slow

BROWSER = Path(__file__).parent / "browser"
MODULES = BROWSER / "node_modules"


def chromium() -> str:
    """Path of Chromium; skipped without it, node or the npm packages, unless CI says they must be there."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    lacks = [
        name
        for name, there in (
            ("chromium", found),
            ("node", shutil.which("node")),
            ("its packages: `npm install` in tests/reports/browser", (MODULES / "playwright-core").is_dir()),
        )
        if not there
    ]
    if lacks:
        reason = f"the page is not opened in a browser, there is no {', no '.join(lacks)}"
        if os.environ.get("IQA_REQUIRE_TOOLS"):
            pytest.fail(reason)
        pytest.skip(reason)
    assert found is not None
    return found


def with_one_of_each(report: Report) -> Report:
    """The report with one figure of every kind; both metrics of a fall, which the switch hides in turn."""
    first, second = report.sections
    shown = {d.name if d.kind == "fall" else d.kind: d for d in reversed(first.figures)}
    studies = {d.name.split("-")[1]: d for d in reversed(report.figures)}
    first = dataclasses.replace(first, figures=tuple(reversed(shown.values())))
    second = dataclasses.replace(second, figures=())
    return dataclasses.replace(report, sections=(first, second), figures=tuple(reversed(studies.values())))


@pytest.fixture(scope="module")
def seen(
    make_run: Callable[..., Any], frames: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What happened when a page with everything in it was opened, filtered, sorted and a model was opened."""
    path = chromium()
    shots = os.environ.get("IQA_SCREENSHOTS")  # a folder, to look at the page with one's own eyes
    folder = Path(shots) if shots else tmp_path_factory.mktemp("page")
    folder.mkdir(parents=True, exist_ok=True)
    other = make_run(
        run="other", suite_sha256="6" * 64, weak="<b>a_rather_long_name_of_a_model_that_wraps</b>"
    )
    inputs = Inputs(
        [make_run().stored, other.stored],
        frames,
        published=True,
        explanations={"random_as_strong": "Random noise of one size is as strong as the attack."},
    )
    page = render_report(with_one_of_each(build_report(inputs)), folder, ["html"])[0]
    done = subprocess.run(
        ["node", "check.mjs", str(page), path, *([str(folder)] if shots else [])],
        cwd=BROWSER,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_page_asks_for_nothing_and_logs_nothing(seen: dict[str, Any]) -> None:
    """No request leaves the file, no error or warning is in the console, no picture is broken."""
    assert {(view["width"], view["scheme"]) for view in seen["views"]} >= {(375, "light"), (1440, "dark")}
    for view in seen["views"]:
        assert view["requests"] == []
        assert view["console"] == []
        assert view["broken"] == 0


def test_nothing_is_wider_than_the_window(seen: dict[str, Any]) -> None:
    """At 375 and at 1440 pixels only tables scroll sideways, the page does not."""
    for view in seen["views"]:
        assert view["overflow"] <= 0, view["width"]
        assert view["overflowOpen"] <= 0, view["width"]


def test_the_leaderboard_fits_a_small_laptop(seen: dict[str, Any]) -> None:
    """At 1300 pixels its last column is seen without scrolling, of the board and of all columns."""
    assert len(seen["leaderboards"]) == 2
    assert all(surplus <= 0 for surplus in seen["leaderboards"])


def test_a_column_sorts_both_ways_by_mouse_and_keyboard(seen: dict[str, Any]) -> None:
    """The best worst case first, then last; the heading says which way."""
    for view in seen["views"]:
        assert view["initial"] == ["strong", "weak"]
        assert view["sortedDown"] == ["strong", "weak"]
        assert view["ariaSort"] == "descending"
        assert view["sortedUp"] == ["weak", "strong"]


def test_the_filter_shows_what_fits_and_says_how_many(seen: dict[str, Any]) -> None:
    """A name leaves its row, nonsense leaves none, an empty field brings all back."""
    for view in seen["views"]:
        assert view["filtered"] == ["strong"]
        assert view["status"] == "1 of 2 models"
        assert view["none"] == []
        assert sorted(view["all"]) == ["strong", "weak"]


def test_a_phone_shows_the_columns_that_matter(seen: dict[str, Any]) -> None:
    """Rank, model, suite_min and verdict at 375 pixels; clean and composed too on a desk."""
    for view in seen["views"]:
        found = ["#", "Model", "suite_min", "Verdict"]
        wide = ["#", "Model", "clean", "suite_min", "composed", "Verdict"]
        assert view["columns"] == (found if view["width"] == 375 else wide)


def test_one_switch_shows_srocc_or_plcc(seen: dict[str, Any]) -> None:
    """Never both, with a script or without."""
    for view in seen["views"]:
        for metric in ("SROCC", "PLCC"):
            captions = view[f"in{metric.capitalize()}"]
            assert captions
            assert all(f"in {metric} at" in caption for caption in captions)
    assert "in PLCC at" in seen["withoutScript"]["caption"]


def test_an_image_is_looked_at_in_one_place_and_found_by_what_happened_to_it(seen: dict[str, Any]) -> None:
    """The attacked image, at a key the original; filters by distortion, way and size of the change."""
    for view in seen["views"]:
        assert view["attacked"] == ["image-3 after the attack", "image-4 after the attack"]
        assert view["original"] == ["Original image-3", "image-4 after the attack"]
        assert view["pressed"] == "true"
        assert view["distortions"] == ["all", "<i>blur", "jpeg"]
        assert view["kept"] == ["1 of 2 images", "2 of 2 images", "1 of 2 images", "0 of 2 images"]


def test_without_a_script_everything_can_be_read(seen: dict[str, Any]) -> None:
    """All three pictures, all rows, and no button that would do nothing."""
    bare = seen["withoutScript"]
    assert (bare["pictures"], bare["rows"], bare["buttons"]) == (3, 2, 0)


def test_a_model_opens_by_keyboard(seen: dict[str, Any]) -> None:
    """Enter on its name opens its panel, moves the focus there and names it in the address."""
    for view in seen["views"]:
        assert view["panelOpen"] is True
        assert view["focus"] == view["opened"]
        assert view["hash"] == f"#{view['panelId']}"


def test_the_accessibility_checker_finds_nothing(seen: dict[str, Any]) -> None:
    """axe-core with every panel open, light and dark: no violation, of whatever impact."""
    checked = [view for view in seen["views"] if "axe" in view]
    assert [(view["width"], view["scheme"]) for view in checked] == [(375, "light"), (1440, "dark")]
    for view in checked:
        assert view["axe"] == []
        assert view["axeRules"] > 20
