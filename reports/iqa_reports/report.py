"""What a report holds, before it has a format: sections of comparable runs, tables and figures of studies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from iqa_reports import text
from iqa_reports.figures import (
    fall_figure,
    moves_figure,
    radius_figure,
    reach_figure,
    scatter_figure,
    security_figure,
    steps_figure,
    thinned,
    transfer_figure,
)
from iqa_reports.finding import ball, finding
from iqa_reports.inputs.frame_entries import distinct
from iqa_reports.inputs.frames import Attention, Diagnostic, Epoch, Feature, Frame, Result, rows_of
from iqa_reports.inputs.merge import Group, StoredRun, Triptych, group_runs, why_apart
from iqa_reports.inputs.run_view import METRICS, WORST_CASES, RunView, reach_of, view_run
from iqa_reports.papers import smart_tables, srm_tables
from iqa_reports.papers.seeds_table import seeds_table
from iqa_reports.papers.study_figures import (
    attention_figure,
    bars_figure,
    features_figure,
    gamma_figure,
    gate_figure,
    lr_figure,
    scale_figure,
    size_figure,
    training_figure,
)
from iqa_reports.power import power_figure
from iqa_reports.radii import members, radii_figure
from iqa_reports.table_view import TableView
from iqa_reports.tables import all_tables

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure


FALLS = 8
"""Most models one figure of falls shows."""


class Drawn(NamedTuple):
    """A figure with its place in the report."""

    name: str
    """File name without suffix, and prefix of its ids in the page."""
    kind: str
    """fall, steps, radius, radii, moves, reach, scatter, security, transfer, power or study."""
    model: str | None
    """Model it is about; None for one that shows several."""
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Section:
    """Everything about one group of comparable runs."""

    prefix: str
    """'' in a report of one group, else a1-, a2-, ...: ids and file names begin with it."""
    view: RunView
    finding: str
    """What was found, in one sentence."""
    runs: tuple[StoredRun, ...]
    """Runs the section was merged from."""
    tables: tuple[TableView, ...]
    figures: tuple[Drawn, ...]
    triptychs: tuple[Triptych, ...]
    remarks: tuple[str, ...]
    """What a reader must know about the merging."""
    explanations: Mapping[str, str] = field(default_factory=dict)
    """A paragraph on each flag."""


@dataclass(frozen=True)
class Report:
    """All there is to show."""

    sections: tuple[Section, ...]
    apart: tuple[str, ...] = ()
    """Why the sections are not one."""
    tables: tuple[TableView, ...] = ()
    """Of studies: the papers' tables."""
    figures: tuple[Drawn, ...] = ()
    """Of studies."""
    unread: tuple[str, ...] = ()
    """Runs that could not be read, with the reason."""

    def all_tables(self) -> list[TableView]:
        """Return every table with a name that is unique in the report."""
        own = [t._replace(name=s.prefix + t.name) for s in self.sections for t in s.tables]
        return [*own, *self.tables]

    def all_figures(self) -> list[Drawn]:
        """Return every figure."""
        return [*(figure for section in self.sections for figure in section.figures), *self.figures]


@dataclass(frozen=True)
class Inputs:
    """What a report is made from."""

    runs: Sequence[StoredRun] = ()
    frames: Mapping[str, pa.Table] = field(default_factory=dict)
    """Name of the kind (`FRAMES`) to one frame of it."""
    published: bool = False
    """Whether published values stand beside ours."""
    papers: bool = True
    """Whether the papers' tables are made of the frames; means over seeds are in any case."""
    figures: bool = True
    """Whether figures are drawn."""
    unread: Sequence[str] = ()
    """Runs that could not be read, with the reason."""
    explanations: Mapping[str, str] = field(default_factory=dict)
    """By flag, a paragraph that says what it means."""


def build_report(inputs: Inputs) -> Report:
    """Return everything that can be shown of the inputs.

    Raises:
        InconsistentRun: a run's tables do not belong to its manifest.
        BadFrame: a frame lacks documented columns.
    """
    groups = group_runs(inputs.runs)
    sections = [
        _section(group, f"a{place}-" if len(groups) > 1 else "", inputs)
        for place, group in enumerate(groups, start=1)
    ]
    labels = {g.merged.manifest.data.name: g.merged.manifest.data.label for g in groups}
    return Report(
        tuple(sections),
        tuple(why_apart(groups)),
        tuple(_study_tables(inputs)),
        tuple(study_figures(inputs.frames, labels)) if inputs.figures else (),
        tuple(inputs.unread),
    )


def _study_tables(inputs: Inputs) -> list[TableView]:
    if inputs.papers:
        return study_tables(inputs.frames, published=inputs.published)
    table = seeds_table(inputs.frames["results"]) if "results" in inputs.frames else None
    return [] if table is None else [table]


def study_tables(frames: Mapping[str, pa.Table], *, published: bool = False) -> list[TableView]:
    """Return the papers' tables that the frames hold anything for."""
    found: list[TableView | None] = []
    results, diagnostics = frames.get("results"), frames.get("diagnostics")
    if diagnostics is not None:
        found += [srm_tables.conditioning_table(diagnostics), srm_tables.scale_table(diagnostics)]
    if "costs" in frames:
        found.append(srm_tables.neck_cost_table(frames["costs"]))
    if results is not None:
        found.append(seeds_table(results))
        found += [make(results) for make in _SRM]
        found += [make(results, published=published) for make in _SMART]
    if "settings" in frames:
        found.append(smart_tables.settings_table(frames["settings"]))
    if published:
        found += [smart_tables.published_settings_table(), smart_tables.published_log_table()]
    if "training" in frames:
        models = distinct(e.model for e in rows_of(frames["training"], Epoch))
        found += [smart_tables.log_table(frames["training"], m) for m in models]
    return [table._replace(name=_plain(table.name)) for table in found if table is not None]


_SRM: tuple[Callable[[pa.Table], TableView | None], ...] = (
    srm_tables.clean_table,
    srm_tables.worst_case_table,
    srm_tables.ablation_table,
)
_SMART: tuple[Callable[..., TableView | None], ...] = (
    smart_tables.comparison_table,
    smart_tables.fusion_table,
    smart_tables.cross_table,
    smart_tables.size_table,
    smart_tables.loss_table,
)


def study_figures(frames: Mapping[str, pa.Table], labels: Mapping[str, str]) -> list[Drawn]:
    """Return the figures that the frames hold anything for.

    `labels` says of an image set whether its labels are MOS or pseudo-MOS; of others they are called labels.
    """
    return [
        Drawn(_plain(f"study-{name}"), "study", None, caption, figure)
        for name, caption, figure in (*_result_figures(frames, labels), *_model_figures(frames))
    ]


def _result_figures(
    frames: Mapping[str, pa.Table], labels: Mapping[str, str]
) -> Iterator[tuple[str, str, Figure]]:
    clean = _clean_results(frames)
    for kind, what in (("variant", "ablation"), ("loss", "training losses")):
        chosen = [r for r in clean if getattr(r, kind) is not None]
        if len({getattr(r, kind) for r in chosen}) > 1:
            for data in distinct(r.data for r in chosen):
                own = [r for r in chosen if r.data == data]
                yield (
                    f"{kind}-{data}",
                    f"{what}, clean, on {data}. Whiskers: one standard deviation over seeds, or a 95 % "
                    "interval.",
                    bars_figure(f"{what} on {data}", own, labels.get(data, "labels")),
                )
    for data in distinct(r.data for r in clean):
        own = [r for r in clean if r.data == data]
        if len({r.model for r in own if r.parameters and r.metric == "srocc"}) > 1:
            figure = size_figure(own, labels.get(data, "labels"))
            yield f"size-{data}", f"SROCC on {data} and number of parameters.", figure
        if len({r.lr for r in own if r.lr}) > 1:
            figure = lr_figure(own, labels.get(data, "labels"))
            yield f"lr-{data}", f"Sensitivity to the learning rate, on {data}.", figure


def _model_figures(frames: Mapping[str, pa.Table]) -> Iterator[tuple[str, str, Figure]]:
    epochs = _rows(frames, "training", Epoch)
    for model in distinct(e.model for e in epochs if not e.place):
        caption = f"Training of {model}: loss and correlation by epoch."
        yield f"training-{model}", caption, training_figure(epochs, model)
    for model in distinct(e.model for e in epochs if e.quantity == "gamma"):
        yield f"gamma-{model}", f"γ of each link of {model} over training.", gamma_figure(epochs, model)
    rows = _rows(frames, "diagnostics", Diagnostic)
    for model in distinct(d.model for d in rows if d.table == "gate"):
        caption = f"Gate of {model} over images: boxes are quartiles, whiskers 5 to 95 %, lines medians."
        yield f"gate-{model}", caption, gate_figure(rows, model)
    for model in distinct(d.model for d in rows if d.table == "scale"):
        caption = f"Size of the attention outputs of {model} before and after γ, link by link."
        yield f"scale-{model}", caption, scale_figure(rows, model)
    weights = _rows(frames, "attention", Attention)
    for model in distinct(a.model for a in weights):
        caption = f"Attention of {model} over stages, by thirds of the images by label and image by image."
        yield f"attention-{model}", caption, attention_figure(weights, model, "label")
    maps = _rows(frames, "features", Feature)
    for model, image_id in dict.fromkeys((f.model, f.image_id) for f in maps):
        mos = next(f.mos for f in maps if (f.model, f.image_id) == (model, image_id))
        caption = f"Mean absolute activation of the stages of {model} on {image_id} (label {mos:.2f})."
        yield f"features-{model}-{image_id}", caption, features_figure(maps, model, image_id)


def _rows(frames: Mapping[str, pa.Table], name: str, kind: type[Frame]) -> list[Frame]:
    return rows_of(frames[name], kind) if name in frames else []


def _clean_results(frames: Mapping[str, pa.Table]) -> list[Result]:
    return [r for r in _rows(frames, "results", Result) if r.row == "clean" and r.metric in METRICS]


# A section -----------------------------------------------------------------------------------------


def _section(group: Group, prefix: str, inputs: Inputs) -> Section:
    merged = group.merged
    alone = len(group.runs) == 1
    view = view_run(
        merged.manifest, merged.table, merged.flags, merged.costs,
        optimalities=merged.optimalities, radii=merged.radii, power=merged.power,
        certificates=merged.certificates, compared=alone,
    )  # fmt: skip
    remarks = list(group.dropped)
    if not alone:
        remarks.append(
            "Merged from several runs of one suite on the same images; whether two models of different runs "
            "can be told apart was not tested, so ranks have no brackets: one run of all models has them."
        )
    drawn = _run_figures(view, merged.intervals, prefix) if inputs.figures else []
    return Section(
        prefix,
        view,
        finding(view),
        group.runs,
        tuple(all_tables(view)),
        tuple(drawn),
        merged.triptychs,
        tuple(remarks),
        inputs.explanations,
    )


def _run_figures(view: RunView, intervals: pa.Table, prefix: str) -> list[Drawn]:
    manifest, label = view.manifest, view.manifest.data.label
    at, setting = f"ε = {text.radius(manifest.main_epsilon)}", text.setting(manifest)
    models = [model for _, model in view.ranking()]
    steps = {model: view.step_lines(model) for model in models}
    radii = {model: view.radius_lines(model) for model in models}
    low = _low_end([v for lines in steps.values() for line in lines for _, v in line.points])
    floor = _low_end([p.value for lines in radii.values() for line in lines for p in line.points])
    drawn = _shared_figures(view, radii, prefix)
    for place, model in enumerate(models, start=1):
        clean = view.clean(model, "srocc")
        value = None if clean is None else clean.value

        def add(kind: str, caption: str, figure: Figure, place: int = place, model: str = model) -> None:
            name = f"{prefix}{_file_name(kind, place, model)}"
            drawn.append(Drawn(name, kind, model, f"{model}: {caption} {setting}", figure))

        if steps[model]:
            add(
                "steps",
                f"SROCC against steps of {manifest.step_sweep} at {at}, without intervals.",
                steps_figure(model, value, steps[model], low, label),
            )
        if radii[model]:
            add(
                "radius",
                "SROCC against the radius: worst cases and members of suite_min, without intervals.",
                radius_figure(model, value, radii[model], floor, label),
            )
        rows = reach_of(intervals, model, manifest.main_epsilon)
        if rows:
            _, every = thinned(rows)
            part = "" if every == 1 else f" One image of {every} is drawn."
            add(
                "moves",
                f"how many images had their score changed how far at {at}.",
                moves_figure(model, rows, label),
            )
            add(
                "reach",
                f"lowest and highest score any attack reached on each image at {at}.{part}",
                reach_figure(model, rows, label),
            )
            add(
                "scatter",
                f"score against label, clean and as the composed worst case at {at} chose.{part}",
                scatter_figure(model, rows, label),
            )
    return drawn


def _shared_figures(view: RunView, radii: Mapping[str, list], prefix: str) -> list[Drawn]:  # type: ignore[type-arg]
    manifest = view.manifest
    setting = text.setting(manifest)
    drawn = _fall_figures(view, prefix)
    for case in WORST_CASES:
        curves = {}
        for model, lines in radii.items():
            line = next((line for line in lines if line.label == case), None)
            clean = view.clean(model, "srocc")
            if line is not None:
                curves[model] = (None if clean is None else clean.value, line.points)
        if curves:
            caption = f"Security curve: {case} SROCC against the radius, bands are 95 % intervals. {setting}"
            figure = security_figure(case, curves, manifest.data.label)
            drawn.append(Drawn(_plain(f"{prefix}security-{case}"), "security", None, caption, figure))
    for member in members(view):
        curve = radii_figure(view, member)
        if curve is not None:
            caption = (
                f"Share of the images moved against the radius; half of them at the grey line. {setting}"
            )
            name = _plain(f"{prefix}radii-{member.attack}-{member.objective}")
            drawn.append(Drawn(name, "radii", None, caption, curve))
    transfers = [m for m in view.members(manifest.main_epsilon) if m.surrogate]
    for objective in distinct(m.objective for m in transfers):
        own = [m for m in transfers if m.objective == objective]
        values = {
            (model, m.surrogate): found.value
            for _, model in view.ranking()
            for m in own
            if (found := view.attacked(model, m, manifest.main_epsilon, "srocc")) is not None
            and found.value is not None
        }
        caption = (
            f"Transfer: SROCC of each model on examples that {objective} found on each surrogate, at "
            f"ε = {text.radius(manifest.main_epsilon)}. {setting}"
        )
        models = [model for _, model in view.ranking()]
        figure = transfer_figure(f"transfer, {objective}", models, distinct(m.surrogate for m in own), values)
        drawn.append(Drawn(_plain(f"{prefix}transfer-{objective}"), "transfer", None, caption, figure))
    if view.power:
        caption = (
            "Power of the attacks: share of plants found against their steepness, widths together; from 1 on "
            f"they must be found. {setting}"
        )
        drawn.append(Drawn(f"{prefix}power", "power", None, caption, power_figure(view.power)))
    return drawn


def _fall_figures(view: RunView, prefix: str) -> list[Drawn]:
    manifest = view.manifest
    models = [model for rank, model in view.ranking()][:FALLS]
    part = f" The first {FALLS} of {len(manifest.models)}." if len(manifest.models) > FALLS else ""
    drawn = []
    for metric in METRICS:
        found = {
            model: (
                view.clean(model, metric),
                *(view.worst(model, case, manifest.main_epsilon, metric) for case in WORST_CASES),
            )
            for model in models
        }
        caption = (
            f"{metric.upper()} without attack, under the suite's worst attack, and when the adversary "
            f"chooses image by image, at {ball(view)}; bars are 95 % intervals.{part} "
            f"{text.setting(manifest)}"
        )
        figure = fall_figure(metric, found, manifest.data.label)
        drawn.append(Drawn(f"{prefix}fall-{metric}", "fall", None, caption, figure))
    return drawn


def _low_end(values: Sequence[float | None]) -> float:
    return min([0.0, *(value for value in values if value is not None)]) - 0.05


def _file_name(kind: str, place: int, model: str) -> str:
    """Return a name that is safe in a file system, a link and an id; the place keeps two models apart."""
    return f"{kind}-{place:02d}-{_plain(model)[:40]}".rstrip("-")


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-")
