"""A stored run as an object: its tables, rows, verdicts, and what can be asked of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_harness.api.reading import aggregated, gather
from iqa_harness.data.image_set import ImageSet
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.reporting.runs import attack_optimality, computed_run
from iqa_harness.tables.robustness import RobustnessTable
from iqa_reports import build_report, html_table, print_report
from iqa_reports.inputs.stored_run import Optimality
from iqa_results import MEASURE, ROW_SCHEMA, CellRecord, ResultStore, RunManifest, Throughput, throughput

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow.dataset as ds

    from iqa_harness.api.report import Written
    from iqa_harness.api.verify import Verification
    from iqa_reports import Report


class Run:
    """A run in its store. Its repr is the leaderboard; everything else is read when it is asked for.

    Attributes:
        store: where its parts, manifest and tables are.
        name: its name there.
        manifest: what it was made of; cells as the store had them when this object was made.
        tables: what its rows amount to, as Arrow tables.
    """

    def __init__(
        self,
        store: ResultStore,
        manifest: RunManifest,
        tables: RobustnessTable,
        entrants: Sequence[Entrant] = (),
        data: ImageSet | None = None,
        asked: frozenset[str] | None = None,
    ) -> None:
        """Take a run with its tables, and the live models and images it was made from, if any."""
        self.store, self.name, self.manifest, self.tables = store, manifest.run, manifest, tables
        self._entrants, self._data, self._asked = tuple(entrants), data, asked

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a (model, kind of row, attack, objective, norm, radius, steps, metric); `TABLE_SCHEMA`."""
        frame: pd.DataFrame = self.tables.table.to_pandas()
        return frame

    def rows(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the per-image rows of the cells that are done: `ROW_SCHEMA`, one row an example.

        Args:
            columns: only these; all if left out.

        Raises:
            RunError: a column that rows do not have.
        """
        unknown = sorted(set(columns or ()) - set(ROW_SCHEMA.names))
        if unknown:
            raise RunError(f"rows have no column {unknown[0]!r}; they have {', '.join(ROW_SCHEMA.names)}")
        found = self.store.read_cells(self._done)
        frame: pd.DataFrame = (found.select(list(columns)) if columns else found).to_pandas()
        return frame

    def dataset(self) -> ds.Dataset:
        """Return the rows as a pyarrow data set over the stored parts, for filters that read what they need.

        Of a store that is no local folder the rows are read at once.
        """
        import pyarrow.dataset as ds

        paths = [self.store.cell_path(key) for key in self._done]
        local = [str(path) for path in paths if isinstance(path, Path)]
        if len(local) == len(paths):
            return ds.dataset(local, schema=ROW_SCHEMA, format="parquet")
        return ds.dataset(self.store.read_cells(self._done))

    @property
    def _done(self) -> list[str]:
        return [cell.key for cell in self.manifest.cells if cell.status == "done"]

    @property
    def verdicts(self) -> dict[str, str]:
        """By model, whether its numbers are to be believed: sound, suspect, incomplete or invalid."""
        return dict(zip(self.table["model"], self.table["verdict"], strict=True))

    @cached_property
    def flags(self) -> pd.DataFrame:
        """One row a (model, flag): what was measured, the bound, whether it is raised; `FLAG_SCHEMA`."""
        frame: pd.DataFrame = self.tables.flags.to_pandas()
        return frame

    @cached_property
    def measures(self) -> pd.DataFrame:
        """One row a (model, attack, measure): gains, robustness scores, costs; `MEASURE_SCHEMA`."""
        frame: pd.DataFrame = self.tables.measures.to_pandas()
        return frame

    @cached_property
    def optimality(self) -> pd.DataFrame:
        """One row a (model, attack) at the main radius: how near the attack comes to the best that any does.

        `fall` and `move` are shares in [0, 1] of the area under the envelope of all attacks, against
        gradients: of the fall of SROCC, and of the mean change of an image's score; null without any.
        """
        import pandas as pd

        found = attack_optimality(MEASURE.rows(self.tables.measures))
        return pd.DataFrame(found, columns=Optimality._fields)

    @property
    def radii(self) -> pd.DataFrame:
        """One row a (model, attack, objective, image) of a search for the smallest radius that moves a score.

        The columns are those of `iqa_harness.tables.radii.radii_frame`; `radius` is inf where nothing up to
        `largest` moved the image. Their medians and intervals are among the `measures`.
        """
        import pandas as pd

        from iqa_harness.tables.radii import radii_frame
        from iqa_harness.tables.robustness import model_rows

        rows = {model: model_rows(self.store, self.manifest, model) for model in self.models}
        return pd.concat([radii_frame(own, self.manifest, m) for m, own in rows.items()], ignore_index=True)

    @cached_property
    def intervals(self) -> pd.DataFrame:
        """One row a (model, radius, image): the lowest and highest score found; `INTERVAL_SCHEMA`."""
        frame: pd.DataFrame = self.tables.intervals.to_pandas()
        return frame

    @cached_property
    def ranks(self) -> pd.DataFrame:
        """One row a model, best first: its rank on the board, the best place it may have, and the last one.

        All of them hold at once with 95 %; null for a model that has no rank.
        """
        import pandas as pd

        return pd.DataFrame(self._ranking()).convert_dtypes()

    def _ranking(self) -> list[dict[str, str | int | None]]:
        ranking = computed_run(self.store, self.manifest, self.tables).ranking()
        named = ((name, *(rank or (None, None))) for rank, name in ranking)
        return [dict(zip(("model", "rank", "last"), each, strict=True)) for each in named]

    @property
    def models(self) -> list[str]:
        """Names of the models, in the run's order."""
        return [model.name for model in self.manifest.models]

    @property
    def throughput(self) -> list[Throughput]:
        """What the attacks went at, by model and kind of device; see `iqa_results.Throughput`."""
        return throughput(self.manifest)

    @property
    def failed(self) -> list[CellRecord]:
        """Cells with an error: `attack` tries them again."""
        return [cell for cell in self.manifest.cells if cell.error]

    @property
    def complete(self) -> bool:
        """Whether every cell that was asked for is done and none has an error."""
        asked = [c for c in self.manifest.cells if self._asked is None or c.key in self._asked]
        return all(cell.status == "done" and not cell.error for cell in asked)

    def compare(self, a: str, b: str) -> pd.DataFrame:
        """Return the paired differences of two models, value of `a` minus value of `b`.

        Both are judged on the same images, and every draw of the bootstrap takes the same ones of both.

        Returns:
            One row a (row, metric) at the main radius: difference, its interval (low, high) and whether
            they are tied, that is, whether the interval holds 0. The intervals of all pairs of the run
            hold at once with 95 %; a run of the two alone, which computes no cell, asks of them alone.

        Raises:
            RunError: a model the run does not have, or twice the same.
        """
        for name in (a, b):
            if name not in self.models:
                raise RunError(f"run {self.name!r} has no model {name!r}; it has {', '.join(self.models)}")
        if a == b:
            raise RunError(f"compare two models, not {a!r} with itself")
        frame = self.tables.differences.to_pandas()
        found = frame[frame["model_a"].isin((a, b)) & frame["model_b"].isin((a, b))].copy()
        if self.models.index(a) > self.models.index(b):
            found["difference"] *= -1
            found["low"], found["high"] = -found["high"], -found["low"]
            found["model_a"], found["model_b"] = a, b
        kept: pd.DataFrame = found.reset_index(drop=True)
        return kept

    def report(self, out: str | Path | None = None, **options: Any) -> Written:
        """Write the page, Markdown, CSV, LaTeX and figures; see `iqa_harness.report`."""
        from iqa_harness.api.report import report

        return report([self.name], store=self.store, out=out, **options)

    def verify(self, **options: Any) -> Verification:
        """Verify the run, with its live models and images if it has them; see `iqa_harness.verify`."""
        from iqa_harness.api.verify import verify

        options.setdefault("models", list(self._entrants))
        options.setdefault("data", self._data)
        return verify(self.name, store=self.store, **options)

    def summary(self) -> dict[str, Any]:
        """Return what a program wants to know: state, verdicts, the table, raised flags, what failed."""
        return {
            "run": self.name,
            "store": str(self.store.root),
            "suite": self.manifest.suite,
            "status": self.manifest.status,
            "complete": self.complete,
            "verdicts": self.verdicts,
            "ranks": self._ranking(),
            "flags": [row for row in self.tables.flags.to_pylist() if row["raised"]],
            "table": self.tables.table,
            "failed": self.failed,
        }

    def refresh(self) -> Run:
        """Return the run as the store has it now, its tables made anew."""
        return Run(self.store, *aggregated(self.store, self.name), self._entrants, self._data, self._asked)

    def _leaderboard(self) -> Report:
        stored = computed_run(self.store, self.manifest, self.tables)
        return build_report(replace(gather(self.store, [stored]), figures=False))

    def __repr__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        print_report(self._leaderboard(), Console(file=text, width=100), full=False)
        return text.getvalue().strip("\n")

    def _repr_html_(self) -> str:
        tables = [table for section in self._leaderboard().sections for table in section.tables]
        return "".join(html_table(table) for table in tables if table.name.startswith("leaderboard"))
