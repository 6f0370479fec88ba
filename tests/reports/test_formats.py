"""Terminal, Markdown and page: the same facts, each format's own dangers."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest
from rich.cells import cell_len
from rich.console import Console

from helpers.page import Page
from helpers.views import sweep, view_run
from iqa_reports import (
    FORMATS,
    Report,
    ReportsError,
    TableView,
    csv_table,
    html_report,
    leaderboard_table,
    markdown_report,
    print_report,
    render_report,
)
from iqa_reports.drawing import INK, inline_svg, save_figure
from iqa_reports.figures import steps_figure
from iqa_reports.formats.csv_table import write_csv
from iqa_reports.formats.markdown import escape, markdown_table
from iqa_reports.leaderboard import leaderboard_markdown
from iqa_reports.table_view import Entry, columns, label, stub
from iqa_results import Selection

Make = Callable[..., Any]

PSEUDO = "labels are pseudo-MOS, computed and not given by people"
FACTS = (
    "0.858",
    "−0.394",
    "[−0.494, −0.294]",
    "undefined",
    "constant scores",
    "out of memory",
    "weak",
    "strong",
)
DRAWN_ONCE = [name for name in FORMATS if name != "png"]
"""Every format but one of the two that are drawn."""
RINGING = "we\x1b[2Jak\x07\x9b1m"
"""A name that would clear a terminal and ring it."""
NASTY = '<script>alert("x")</script> | $a_1$ [red]*b*'


def terminal(run: Any, *, width: int = 80, encoding: str = "utf-8", whole: bool = True) -> str:
    """What the terminal shows."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="strict", newline="")
    console = Console(file=file, width=width, force_terminal=False)
    print_report(run.report(figures=False), console, full=whole)
    file.flush()
    return raw.getvalue().decode(encoding)


def without_images(run: Any) -> Any:
    """The run without its scores image by image: fewer figures to draw."""
    return run._replace(intervals=run.intervals.slice(0, 0))


def only(report: Report, kind: str) -> Report:
    """The report with figures of one kind."""
    (section,) = report.sections
    figures = tuple(d for d in section.figures if d.kind == kind)
    return dataclasses.replace(report, sections=(dataclasses.replace(section, figures=figures),))


@pytest.fixture(scope="module")
def written(run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the rendered report, only to be read."""
    folder = tmp_path_factory.mktemp("report")
    render_report(run.report(), folder)
    return folder


@pytest.fixture(scope="module")
def awkward(make_run: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, list[Path]]:
    """A run of two models with such names, the folder of its report and the files in it, only to be read."""
    folder = tmp_path_factory.mktemp("awkward")
    run = make_run(weak=NASTY, strong=RINGING)
    run = run._replace(intervals=run.intervals.slice(40))  # of one model
    return run, folder, render_report(run.report(), folder, DRAWN_ONCE)


# Every format ---------------------------------------------------------------------------------------


def test_every_format_shows_the_same_facts(run: Any, written: Path) -> None:
    """Numbers, intervals, undefined and missing values with their reasons, and the warning."""
    page = Page((written / "index.html").read_text(encoding="utf-8")).text
    markdown = (written / "report.md").read_text(encoding="utf-8").replace("\\", "")
    for shown in (terminal(run), markdown, page):
        flat = " ".join(shown.split())
        for fact in (*FACTS, PSEUDO, "0 of 6 cells missing, 1 failed", "seven scenes only"):
            assert fact in flat, fact


def test_a_complete_run_shows_no_warning(make_run: Make) -> None:
    """The warning of an incomplete run is not there when every cell is done."""
    run = make_run(status="complete")
    report = run.report(figures=False)
    for shown in (terminal(run), markdown_report(report), html_report(report, {})):
        assert "not complete" not in shown
        assert "not the suite's numbers" not in shown


@pytest.mark.parametrize("status", ["complete", "partial"])
def test_a_limited_run_is_told_before_any_value(make_run: Make, status: str) -> None:
    """Complete or not, few images are not the suite's: said above the leaderboard in every format."""
    words = "the first 3 images of the 40 that the suite names"
    update = {"images": 3, "chosen": Selection(limit=3), "chosen_from": 40}
    data = make_run().manifest.data.model_copy(update=update)
    run = make_run(status=status, data=data)
    report = run.report(figures=False)
    page = Page(html_report(report, {})).text
    for shown in (terminal(run), markdown_report(report).replace("\\", ""), page):
        flat = " ".join(shown.split())
        warned = flat.index(f"Computed from {words}: not the suite's numbers.")
        assert warned < flat.index("suite_min")
        assert ("This run is not complete" in flat) == (status == "partial")


# Terminal -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_number_is_cut_in_a_terminal(make_run: Make, width: int) -> None:
    """At 80 columns and more every number and interval is whole and no line is longer than the terminal."""
    run = make_run(weak="a-model-with-a-rather-long-name-that-folds")
    shown = terminal(run, width=width)
    assert "…" not in shown
    assert max(cell_len(line) for line in shown.splitlines()) <= width
    assert shown.count("[") == shown.count("]")
    view = view_run(run.manifest, run.table)
    for row in leaderboard_table(view, "srocc").rows:
        for entry in row:
            if entry.kind == "number":
                assert entry.text in shown
                assert entry.interval in shown


def test_the_board_is_one_piece_of_eighty_columns(run: Any) -> None:
    """A report that is not full shows each model's line once, with values and verdict, and how to read it."""
    shown = terminal(run, whole=False)
    lines = shown.splitlines()
    (heads,) = [line for line in lines if "suite_min" in line and "composed" in line]
    assert heads.split() == ["clean", "suite_min", "composed", "Verdict"]
    for model in ("weak", "strong"):
        assert len([line for line in lines if model in line.split()[:3]]) == 1
    assert max(map(len, lines)) <= 80
    assert "Leaderboard in SROCC" in shown
    assert "suite_min is the lowest value" in shown
    assert f"`iqa-harness report {run.manifest.run} --full`" in " ".join(shown.split())
    assert not any(words in shown for words in ("in PLCC", "Worst case by radius", "Drop is"))


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_of_another_encoding_gets_ascii(make_run: Make, encoding: str) -> None:
    """Signs that the terminal's encoding lacks are written with ones it has, names included."""
    shown = terminal(make_run(weak="modèle-日本"), encoding=encoding)
    assert "-0.394" in shown
    assert "eps = 2/255" in shown


def test_markup_in_a_name_is_text_in_a_terminal(make_run: Make) -> None:
    """A model called [red] is shown by that name."""
    assert "[red]" in terminal(make_run(weak="[red]"))


# Markdown -------------------------------------------------------------------------------------------


def test_markdown_tables_are_well_formed(make_run: Make) -> None:
    """Every row of every table has as many cells as its heading, whatever the names hold."""
    run = make_run(weak=NASTY)
    lines = markdown_report(run.report(figures=False)).splitlines()
    counts: list[int] = []
    for line in [*lines, ""]:
        if line.startswith("|"):
            counts.append(len(re.split(r"(?<!\\)\|", line)))
        elif counts:
            assert len(counts) >= 3
            assert len(set(counts)) == 1
            counts = []


def test_markdown_aligns_numbers_right(run: Any) -> None:
    """The rule under the heading aligns rank and numbers right, names left."""
    table = markdown_table(leaderboard_table(view_run(run.manifest, run.table), "srocc")).splitlines()
    assert table[2].startswith(r"| \# | Model | clean | suite_min | suite_min drop")
    assert table[3].startswith("| --: | :-- | --: | --: |")


def test_markdown_escapes_what_would_be_markup() -> None:
    """Pipes, tags, emphasis and links are shown as written; underscores in words stay as they are."""
    assert escape("a|b <b> *c* [d](e) `f` & #g") == r"a\|b \<b\> \*c\* \[d\](e) \`f\` \& \#g"
    assert escape("suite_min _x_") == r"suite_min \_x\_"
    assert escape("two\nlines") == "two lines"


def test_the_suite_cannot_end_its_fence(run: Any) -> None:
    """Backticks in the suite's text stay inside the code block."""
    report = markdown_report(run.report(figures=False))
    assert '````toml\nname = "smoke"\n# ``` <b>\n````\n' in report


# Page -----------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_but_itself(written: Path) -> None:
    """Nothing that a browser would fetch, no import in a style, and a policy that forbids fetching."""
    source = (written / "index.html").read_text(encoding="utf-8")
    page = Page(source)
    assert {"iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), attributes
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "@import" not in source
    assert not re.search(r"url\((?!#)", source)


def test_links_of_the_page_lead_somewhere_and_ids_are_unique(written: Path) -> None:
    """Every internal reference names an element, and no two elements share an id."""
    source = (written / "index.html").read_text(encoding="utf-8")
    page = Page(source)
    ids = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    wanted = {a["href"] for a in page.all("a") if (a["href"] or "").startswith("#")} | {
        a["xlink:href"] for a in page.all("use")
    }
    wanted |= {f"#{a['aria-labelledby']}" for _, a in page.tags if a.get("aria-labelledby")}
    wanted |= set(re.findall(r"url\((#[^)]+)\)", source))
    assert {w.removeprefix("#") for w in wanted if w} <= set(ids)


def test_a_picture_of_another_score_says_so(written: Path) -> None:
    """Under the one picture that does not have the stored score, and under no other."""
    shown = " ".join(Page((written / "index.html").read_text(encoding="utf-8")).text.split())
    assert shown.count("Not the picture of that score: the one shown scores 0.375") == 1
    assert shown.count("Not the picture of that score") == 1


def test_tables_of_the_page_are_tables(written: Path) -> None:
    """Language, captions, scopes and one name for every figure: what a screen reader needs."""
    page = Page((written / "index.html").read_text(encoding="utf-8"))
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("caption")) == len(page.all("table")) == 11
    assert all(a.get("scope") in {"col", "colgroup", "row"} for a in page.all("th"))
    assert all(a.get("role") == "img" and a.get("aria-label") for a in page.all("svg"))
    assert len(page.all("svg")) == 13


def test_the_page_says_each_thing_once(written: Path) -> None:
    """The data's caveat, a raised flag, those not measured; an unraised flag without what it would mean."""
    shown = " ".join(Page((written / "index.html").read_text(encoding="utf-8")).text.split())
    assert shown.count(PSEUDO) == 1
    assert shown.index("goes from SROCC 0.812 without attack to 0.303") < shown.index(PSEUDO)
    assert shown.count("random as strong: raised, suspect; measured 0.97, threshold 0.5.") == 2
    assert shown.count("zero gradientsnot raised: 0, threshold 0.5") == 2
    assert shown.count("jpeg fragile, never tried") == 2
    assert "a dead end" not in shown


def test_tables_of_the_page_can_be_taken_away(run: Any, written: Path) -> None:
    """Every link to a file holds it whole: the bytes that the report's folder has."""
    page = Page((written / "index.html").read_text(encoding="utf-8"))
    files = {a["download"]: a["href"] for a in page.all("a") if a.get("download")}
    assert {name for name in files if name} == {p.name for p in (written / "tables").iterdir()}
    for name, address in files.items():
        assert address is not None
        held = base64.b64decode(address.partition(",")[2])
        assert held == (written / "tables" / str(name)).read_bytes(), name


def test_a_page_in_its_store_leads_to_the_rows(run: Any, tmp_path: Path) -> None:
    """Two relative links, which lead to what is there; a page elsewhere has none."""
    (tmp_path / "cells").mkdir()
    own = tmp_path / "runs" / "first"
    own.mkdir(parents=True)
    (own / "table.parquet").write_bytes(b"")
    for folder, links in ((own / "report", ["../../../cells/", "../table.parquet"]), (tmp_path / "x", [])):
        path = render_report(run.report(figures=False), folder, ["html"])[0]
        found = [str(a["href"]) for a in Page(path.read_text(encoding="utf-8")).all("a")]
        found = [href for href in found if not href.startswith(("#", "data:"))]
        assert found == links
        assert all((folder / href).exists() for href in found)


def test_names_are_text_in_the_page(awkward: tuple[Any, Path, list[Path]]) -> None:
    """A model called <script> is shown by that name, in tables, captions and figures."""
    _, folder, files = awkward
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    assert len(page.all("script")) == 1
    assert page.text.count(NASTY) >= 8
    assert all(re.fullmatch(r"[A-Za-z0-9.-]+", path.name) for path in files)


# Figures and files ----------------------------------------------------------------------------------


def test_two_renders_are_equal_to_the_byte(run: Any, written: Path, tmp_path: Path) -> None:
    """The same run gives the same files, whatever the user's matplotlib settings are."""
    report = run.report()
    drawn = next(d for d in report.all_figures() if d.kind == "scatter")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        files = render_report(report, tmp_path, DRAWN_ONCE)
        png = save_figure(drawn.figure, "png")
    assert png == (written / "figures" / f"{drawn.name}.png").read_bytes()
    assert [path.name for path in files[:3]] == ["index.html", "report.md", "report.tex"]
    for path in files:
        assert path.read_bytes() == (written / path.relative_to(tmp_path)).read_bytes(), path.name


def test_drawing_leaves_the_users_matplotlib_alone() -> None:
    """Settings after a figure was drawn and saved are those from before it."""
    before = dict(mpl.rcParams)
    save_figure(steps_figure("m", {"mse": sweep({1: 0.5})}, -0.05, "MOS"), "png")
    assert dict(mpl.rcParams) == before


def test_the_files_are_those_of_every_format(written: Path) -> None:
    """Page, Markdown, LaTeX, tables as CSV and LaTeX, figures as SVG and PNG; no fragment is left."""
    names = {p.relative_to(written).as_posix() for p in written.rglob("*") if p.is_file()}
    kinds = ("steps", "radius", "moves", "reach", "scatter")
    figures = {f"{k}-01-strong" for k in kinds} | {f"{k}-02-weak" for k in kinds if k != "radius"}
    figures |= {"security-suite-min", "security-composed", "fall-srocc", "fall-plcc"}
    tables = {f"{t}-{m}" for t in ("leaderboard", "attacks", "epsilons") for m in ("srocc", "plcc")}
    tables |= {"checks", "flags", "models"}
    assert names == (
        {"index.html", "report.md", "report.tex", ".report-files.json"}
        | {f"figures/{f}.{k}" for f in figures for k in ("svg", "png")}
        | {f"tables/{t}.{k}" for t in tables for k in ("csv", "tex")}
    )


def test_only_the_formats_asked_for_are_written(run: Any, tmp_path: Path) -> None:
    """A format that was not asked for leaves no file; Markdown brings the figures it shows."""
    render_report(run.report(figures=False), tmp_path, ["csv"])
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {".csv", ".json"}
    render_report(only(without_images(run).report(), "fall"), tmp_path, ["markdown"])
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {".md", ".svg", ".json"}


def test_a_later_report_removes_its_own_files_alone(make_run: Make, tmp_path: Path) -> None:
    """Figures of a model that is gone go away; a file somebody else put there stays."""
    render_report(only(without_images(make_run()).report(), "steps"), tmp_path, ["svg"])
    (tmp_path / "figures" / "mine.svg").write_text("mine")
    render_report(only(without_images(make_run(weak="other")).report(), "steps"), tmp_path, ["svg"])
    names = {p.name for p in (tmp_path / "figures").iterdir()}
    assert "mine.svg" in names
    assert "steps-02-other.svg" in names
    assert "steps-02-weak.svg" not in names


def test_a_failed_render_leaves_the_old_page(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error while writing leaves the former page as it was and no fragment."""
    run = make_run(step_sweep=None)
    (tmp_path / "index.html").write_text("the former page")

    def fail(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        render_report(only(without_images(run).report(), "fall"), tmp_path, DRAWN_ONCE)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["index.html"]
    assert (tmp_path / "index.html").read_text() == "the former page"


def test_a_run_without_sweep_and_intervals_has_no_figures_of_them(make_run: Make, tmp_path: Path) -> None:
    """Nothing to draw is no figure, not an empty one."""
    run = make_run(step_sweep=None)
    report = without_images(run).report()
    assert {d.kind for d in report.all_figures()} == {"fall", "radius", "security"}
    files = render_report(run.report(figures=False), tmp_path, ["html"])
    assert "<svg" not in files[0].read_text(encoding="utf-8")


def test_figures_in_markdown_are_the_files_written(written: Path) -> None:
    """Every image the Markdown names lies beside it."""
    paths = re.findall(r"\]\((figures/[^)]+)\)", (written / "report.md").read_text(encoding="utf-8"))
    assert len(paths) == 13
    assert all((written / path).is_file() for path in paths)


def test_an_undefined_point_breaks_the_line(run: Any) -> None:
    """A step without value is a gap in the line, never a point at zero."""
    figure = steps_figure("m", {"mse": sweep({1: 0.5, 2: None, 4: 0.1})}, -0.05, "MOS")
    drawn = next(line for line in figure.axes[0].get_lines() if line.get_label() == "mse")
    assert [str(v) for v in drawn.get_ydata()] == ["0.5", "nan", "0.1"]


def test_a_figure_in_the_page_takes_the_pages_text_colour(run: Any) -> None:
    """Inline SVG has no colour of its own for text and frames, the file has; both are well-formed."""
    figure = steps_figure("m & <m> $x$", {"mse": sweep({0: 0.8, 1: 0.5})}, -0.05, "MOS")
    file = save_figure(figure, "svg")
    inline, file = inline_svg(file, "one", 'a "b" <c>'), file.decode()
    assert "#ffffff" not in inline
    assert INK not in inline
    assert "currentColor" in inline
    assert INK in file
    assert ET.fromstring(inline).get("aria-label") == 'a "b" <c>'  # noqa: S314  our own output
    ET.fromstring(file)  # noqa: S314  our own output


def test_a_figure_alone_says_what_the_labels_are(written: Path) -> None:
    """Every figure's file names pseudo-MOS on an axis, for it may be shown without its caption."""
    for path in (written / "figures").glob("*.svg"):
        assert "pseudo-MOS" in path.read_text(encoding="utf-8"), path.name


def test_a_name_in_any_script_can_be_drawn() -> None:
    """A name that the figure's font lacks is no failure and no warning, and stays in the SVG."""
    figure = steps_figure("モデル", {"mse": sweep({1: 0.5})}, -0.05, "MOS")
    assert save_figure(figure, "png")
    assert "モデル" in save_figure(figure, "svg").decode()


def test_control_signs_in_a_name_reach_no_format(awkward: tuple[Any, Path, list[Path]]) -> None:
    """A label that would clear a terminal, ring it or end an SVG's XML is shown with the sign replaced."""
    run, folder, _ = awkward
    texts = [
        path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.suffix not in (".png", "")
    ]
    texts += [terminal(run), leaderboard_markdown(run.report(figures=False))]
    assert len(texts) > 20
    for text in texts:
        assert re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text) == []
    assert any("we\N{REPLACEMENT CHARACTER}[2Jak" in text for text in texts)
    for path in (folder / "figures").glob("*.svg"):
        ET.parse(path)  # noqa: S314  our own output


def test_no_cell_of_a_csv_is_a_formula() -> None:
    """Of a table or of plain rows: text that a spreadsheet would run gets an apostrophe, numbers stay."""
    out = io.StringIO()
    write_csv(out, [["=cmd|' /C calc'!A1", "@x", "+1", "-1", "\tx", -1.5, None, "a=b", 'q"u,o']])
    assert out.getvalue() == "'=cmd|' /C calc'!A1,'@x,'+1,'-1,'\tx,-1.5,,a=b,\"q\"\"u,o\"\n"
    view = TableView(
        "x", "", stub("=a"), (columns("-b"),), ((label("@c"), Entry("-1", "number", number=-1.0)),), ()
    )
    assert csv_table(view) == "'=a,'-b,notes\n'@c,-1.0,\n"


@pytest.mark.parametrize("place", ["index.html", "tables/leaderboard-srocc.csv", ".report-files.json"])
def test_a_folder_where_a_file_goes_is_named_before_anything_is_written(
    run: Any, tmp_path: Path, place: str
) -> None:
    """One clear error, and no half of a report."""
    (tmp_path / place).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ReportsError, match=f"{place} is a folder where a file of the report goes"):
        render_report(run.report(figures=False), tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_listing_that_names_folders_or_nonsense_removes_nothing(run: Any, tmp_path: Path) -> None:
    """A former report's file that is a user's folder now stays; a name no file can have is passed over."""
    (tmp_path / "mine").mkdir()
    (tmp_path / ".report-files.json").write_text(json.dumps(["mine", "a\0b", 7, "../x"]))
    render_report(run.report(figures=False), tmp_path, ["markdown"])
    assert (tmp_path / "mine").is_dir()
