"""Tables and figures of runs, studies and other commands' files, as files."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from iqa_harness.api.opening import STORE, opened
from iqa_harness.api.reading import aggregated, explanations, gather, note_page, report_folder
from iqa_harness.entrants.naming import run_plugins
from iqa_harness.errors import RunError
from iqa_harness.machine.places import require_folder
from iqa_harness.reporting.results import results_of
from iqa_harness.reporting.runs import computed_run, find_runs, read_runs
from iqa_reports import FORMATS, Inputs, Report, build_report, print_report, render_report
from iqa_reports.leaderboard import write_leaderboard
from iqa_results import RemotePath, ResultStore

BRIEF = ("html", "markdown")
"""What a run's own end writes; `report` writes every format."""


@dataclass(frozen=True)
class Written:
    """A report and the files it was written to."""

    report: Report
    folder: Path
    files: tuple[Path, ...]
    """The page first, if there is one."""
    tables: tuple[Path | RemotePath, ...] = ()
    """Of every run of one store, where its table is stored."""
    rows: Path | RemotePath | None = None
    """Where the rows behind them are."""
    unread: tuple[str, ...] = ()
    """Runs that could not be read, with the reason."""

    @property
    def page(self) -> Path | None:
        """The HTML page, None if it was not asked for."""
        return next((path for path in self.files if path.suffix == ".html"), None)

    def text(self, *, full: bool = False, width: int = 100) -> str:
        """Return the leaderboards, or with `full` every table, as a terminal shows them."""
        from rich.console import Console

        out = io.StringIO()
        print_report(self.report, Console(file=out, width=width), full=full)
        return out.getvalue()

    def summary(self) -> dict[str, object]:
        """Return where everything is, and what could not be read."""
        return {
            "page": self.page, "folder": self.folder, "files": self.files, "tables": self.tables,
            "rows": self.rows, "unread": self.unread,
        }  # fmt: skip

    def __repr__(self) -> str:
        return self.text().strip("\n")


def report(
    runs: str | Sequence[str] = (),
    *,
    store: str | Path | ResultStore = STORE,
    out: str | Path | None = None,
    formats: Collection[str] | None = None,
    inputs: Sequence[str | Path] = (),
    published: bool = False,
    images: int = 0,
    cache: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
) -> Written:  # one argument an option of the command
    """Compute runs' tables from their rows and write the page, Markdown, CSV, LaTeX and figures.

    Args:
        runs: names in the store; comparable ones are merged.
        store: folder or URL of results.
        out: folder for the files, `report/` in the run's folder if left out.
        formats: some of `iqa_reports.FORMATS`, all if left out.
        inputs: Parquet files of evaluate, diagnose or profile, or folders of them, of studies and of
            training, for the papers' tables and figures.
        published: show values the papers print beside ours, named as such.
        images: worst images a model in the page; their attacks are run again.
        cache: folder of the embedded data.
        plugins: Python files of yours that register models.

    Raises:
        RunError: nothing to report, an unknown format, images without a page, no folder to write to.
    """
    formats = FORMATS if formats is None else formats
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise RunError(f"--format {', '.join(unknown)}: no such format; there are {', '.join(FORMATS)}")
    if images and "html" not in formats:
        raise RunError("--images are shown in the page: add --format html")
    names = [runs] if isinstance(runs, str) else list(dict.fromkeys(runs))
    if not names and not inputs:
        raise RunError("nothing to report: name a run, or give files with --input")
    if out is None and len(names) != 1:
        raise RunError("several runs or none have no folder of their own: say where with --out")
    results = opened(store)
    if out is None:
        require_folder(str(results.root), "--store")
    folder = Path(out) if out is not None else report_folder(results, names[0])
    require_folder(folder, "--out")
    plugged = bool(run_plugins(plugins))
    found = [aggregated(results, name) for name in names]
    made = gather(
        results, [computed_run(results, *each) for each in found], [Path(file) for file in inputs],
        published=published, images=images, cache=cache, plugged=plugged,
    )  # fmt: skip
    built = build_report(made)
    # None is in a store that cannot be written to.
    tables = tuple(results.table_path(name) for name in names if results.has_table(name))
    rows = results.root / "cells" if names else None
    written = Written(built, folder, tuple(render_report(built, folder, formats)), tables, rows)
    if out is None and written.page is not None:
        note_page(results, names[0], found[0][1])
    return written


def leaderboard(places: str | Path | Sequence[str | Path], *, out: str | Path = "reports") -> Written:
    """Merge the runs of many days and machines into one leaderboard.

    Runs of other suites or data stand apart, never in one table. Reads the tables that `report` or `attack`
    stored and computes no attack. A run that cannot be read is named in `unread` and left out; a table of
    other cells than its run has is shown and said to be.

    Args:
        places: one or several stores (folders or URLs), folders with stores below them, or folders of runs.
        out: folder for leaderboard.md and leaderboard.html.

    Raises:
        RunError: a place without runs, or no folder to write to.
    """
    require_folder(out, "--out")
    places = [places] if isinstance(places, str | Path) else places
    runs, unread = read_runs(find_runs(places), intervals=False)
    frames = {"results": results_of(runs)} if runs else {}
    built = build_report(
        Inputs(runs, frames, unread=unread, papers=False, figures=False, explanations=explanations())
    )
    return Written(built, Path(out), tuple(write_leaderboard(built, Path(out))), unread=tuple(unread))
