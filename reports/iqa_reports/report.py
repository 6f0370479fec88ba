"""What a report holds, before it has a format: sections of comparable runs, tables and figures of studies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from iqa_reports import figures as run_figures
from iqa_reports import text
from iqa_reports.finding import ball, finding
from iqa_reports.inputs.frame_entries import distinct
from iqa_reports.inputs.frames import Attention, Diagnostic, Epoch, Feature, Result
from iqa_reports.inputs.merge import Group, group_runs, why_apart
from iqa_reports.inputs.stored_run import METRICS, WORST_CASES, StoredRun, reach_of
from iqa_reports.papers import smart_tables, srm_tables
from iqa_reports.papers import study_figures as study
from iqa_reports.papers.seeds_table import seeds_table
from iqa_reports.power import power_figure
from iqa_reports.radii import members, radii_figure
from iqa_reports.table_view import TableView
from iqa_reports.tables import all_tables
from iqa_results import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Frames = Mapping[str, Sequence[Any]]
"""Records by the name of their kind in `iqa_reports.FRAMES`."""
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
    view: StoredRun
    """The run they make together."""
    finding: str
    """What was found, in one sentence."""
    runs: tuple[StoredRun, ...]
    """Runs the section was merged from."""
    tables: tuple[TableView, ...]
    figures: tuple[Drawn, ...]
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
    frames: Frames = field(default_factory=dict)
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
    table = seeds_table(inputs.frames.get("results", ()))
    return [] if table is None else [table]


def study_tables(frames: Frames, *, published: bool = False) -> list[TableView]:
    """Return the papers' tables that the frames hold anything for."""
    results, epochs, diagnostics = (frames.get(name, ()) for name in ("results", "training", "diagnostics"))
    found = (
        srm_tables.conditioning_table(diagnostics),
        srm_tables.scale_table(diagnostics),
        srm_tables.neck_cost_table(frames.get("costs", ())),
        seeds_table(results),
        srm_tables.clean_table(results),
        srm_tables.worst_case_table(results),
        srm_tables.ablation_table(results),
        *smart_tables.smart_tables(results, published=published),
        smart_tables.settings_table(frames.get("settings", ())),
        *(smart_tables.published_tables() if published else ()),
        *(smart_tables.log_table(epochs, model) for model in distinct(e.model for e in epochs)),
    )
    return [table._replace(name=_plain(table.name)) for table in found if table is not None]


def study_figures(frames: Frames, labels: Mapping[str, str]) -> list[Drawn]:
    """Return the figures that the frames hold anything for.

    `labels` says of an image set whether its labels are MOS or pseudo-MOS; of others they are called labels.
    """
    return [
        Drawn(_plain(f"study-{name}"), "study", None, caption, figure)
        for name, caption, figure in (*_result_figures(frames, labels), *_model_figures(frames))
    ]


def _result_figures(frames: Frames, labels: Mapping[str, str]) -> Iterator[tuple[str, str, Figure]]:
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
                    study.bars_figure(f"{what} on {data}", own, labels.get(data, "labels")),
                )
    for data in distinct(r.data for r in clean):
        own = [r for r in clean if r.data == data]
        if len({r.model for r in own if r.parameters and r.metric == "srocc"}) > 1:
            figure = study.size_figure(own, labels.get(data, "labels"))
            yield f"size-{data}", f"SROCC on {data} and number of parameters.", figure
        if len({r.lr for r in own if r.lr}) > 1:
            figure = study.lr_figure(own, labels.get(data, "labels"))
            yield f"lr-{data}", f"Sensitivity to the learning rate, on {data}.", figure


def _model_figures(frames: Frames) -> Iterator[tuple[str, str, Figure]]:
    epochs: Sequence[Epoch] = frames.get("training", ())
    for model in distinct(e.model for e in epochs if not e.place):
        caption = f"Training of {model}: loss and correlation by epoch."
        yield f"training-{model}", caption, study.training_figure(epochs, model)
    for model in distinct(e.model for e in epochs if e.quantity == "gamma"):
        yield f"gamma-{model}", f"γ of each link of {model} over training.", study.gamma_figure(epochs, model)
    rows: Sequence[Diagnostic] = frames.get("diagnostics", ())
    for model in distinct(d.model for d in rows if d.table == "gate"):
        caption = f"Gate of {model} over images: boxes are quartiles, whiskers 5 to 95 %, lines medians."
        yield f"gate-{model}", caption, study.gate_figure(rows, model)
    for model in distinct(d.model for d in rows if d.table == "scale"):
        caption = f"Size of the attention outputs of {model} before and after γ, link by link."
        yield f"scale-{model}", caption, study.scale_figure(rows, model)
    weights: Sequence[Attention] = frames.get("attention", ())
    for model in distinct(a.model for a in weights):
        caption = f"Attention of {model} over stages, by thirds of the images by label and image by image."
        yield f"attention-{model}", caption, study.attention_figure(weights, model, "label")
    maps: Sequence[Feature] = frames.get("features", ())
    for model, image_id in dict.fromkeys((f.model, f.image_id) for f in maps):
        mos = next(f.mos for f in maps if (f.model, f.image_id) == (model, image_id))
        caption = f"Mean absolute activation of the stages of {model} on {image_id} (label {mos:.2f})."
        yield f"features-{model}-{image_id}", caption, study.features_figure(maps, model, image_id)


def _clean_results(frames: Frames) -> list[Result]:
    return [r for r in frames.get("results", ()) if r.row == "clean" and r.metric in METRICS]


# A section -----------------------------------------------------------------------------------------


def _section(group: Group, prefix: str, inputs: Inputs) -> Section:
    view, remarks = group.merged, list(group.dropped)
    if not view.compared:
        remarks.append(
            "Merged from several runs of one suite on the same images; whether two models of different runs "
            "can be told apart was not tested, so ranks have no brackets: one run of all models has them."
        )
    return Section(
        prefix,
        view,
        finding(view),
        group.runs,
        tuple(all_tables(view)),
        tuple(_run_figures(view, prefix)) if inputs.figures else (),
        tuple(remarks),
        inputs.explanations,
    )


def _run_figures(view: StoredRun, prefix: str) -> Iterator[Drawn]:
    setting = text.setting(view.manifest)
    for kind, of, caption, figure in _shared_figures(view):
        yield Drawn(_plain(f"{prefix}{kind}-{of}"), kind, None, f"{caption} {setting}", figure)
    models = [model for _, model in view.ranking()]
    lows = (_low_end(map(view.step_lines, models)), _low_end(map(view.radius_lines, models)))
    for place, model in enumerate(models, start=1):
        for kind, caption, figure in _figures_of(view, model, *lows):
            name = f"{prefix}{_file_name(kind, place, model)}"
            yield Drawn(name, kind, model, f"{model}: {caption} {setting}", figure)


def _figures_of(view: StoredRun, model: str, low: float, floor: float) -> Iterator[tuple[str, str, Figure]]:
    """Yield kind, caption and figure of each that shows one model; axes end at `low` and `floor`."""
    manifest, label = view.manifest, view.manifest.data.label
    at = f"ε = {text.radius(manifest.main_epsilon)}"
    if steps := view.step_lines(model):
        caption = f"SROCC against steps of {manifest.step_sweep} at {at}, without intervals."
        yield "steps", caption, run_figures.steps_figure(model, steps, low, label)
    if radii := view.radius_lines(model):
        caption = "SROCC against the radius: worst cases and members of suite_min, without intervals."
        yield "radius", caption, run_figures.radius_figure(model, radii, floor, label)
    if rows := reach_of(view.intervals, model, manifest.main_epsilon):
        _, every = run_figures.thinned(rows)
        part = "" if every == 1 else f" One image of {every} is drawn."
        caption = f"how many images had their score changed how far at {at}."
        yield "moves", caption, run_figures.moves_figure(model, rows, label)
        caption = f"lowest and highest score any attack reached on each image at {at}.{part}"
        yield "reach", caption, run_figures.reach_figure(model, rows, label)
        caption = f"score against label, clean and as the composed worst case at {at} chose.{part}"
        yield "scatter", caption, run_figures.scatter_figure(model, rows, label)


def _shared_figures(view: StoredRun) -> Iterator[tuple[str, str, str, Figure]]:
    """Yield kind, what of it, caption and figure of each that shows several models."""
    manifest = view.manifest
    models = [model for _, model in view.ranking()]
    yield from _fall_figures(view, models[:FALLS])
    for case in WORST_CASES:
        lines = {model: view.radius_lines(model).get(case) for model in models}
        curves = {model: points for model, points in lines.items() if points}
        if curves:
            caption = f"Security curve: {case} SROCC against the radius, bands are 95 % intervals."
            yield "security", case, caption, run_figures.security_figure(case, curves, manifest.data.label)
    for member in members(view):
        curve = radii_figure(view, member)
        if curve is not None:
            caption = "Share of the images moved against the radius; half of them at the grey line."
            yield "radii", f"{member.attack}-{member.objective}", caption, curve
    transfers = [m for m in view.members(manifest.main_epsilon) if m.surrogate]
    for objective in distinct(m.objective for m in transfers):
        own = [m for m in transfers if m.objective == objective]
        values = {
            (model, m.surrogate): found.value
            for model in models
            for m in own
            if (found := view.attacked(model, m, manifest.main_epsilon, "srocc")) is not None
            and found.value is not None
        }
        caption = (
            f"Transfer: SROCC of each model on examples that {objective} found on each surrogate, at "
            f"ε = {text.radius(manifest.main_epsilon)}."
        )
        figure = run_figures.transfer_figure(
            f"transfer, {objective}", models, distinct(m.surrogate for m in own), values
        )
        yield "transfer", objective, caption, figure
    if view.power:
        caption = (
            "Power of the attacks: share of plants found against their steepness, widths together; from 1 on "
            "they must be found."
        )
        yield "power", "", caption, power_figure(view.power)


def _fall_figures(view: StoredRun, models: Sequence[str]) -> Iterator[tuple[str, str, str, Figure]]:
    manifest = view.manifest
    whole = len(models) == len(manifest.models)
    part = "" if whole else f" The first {len(models)} of {len(manifest.models)}."
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
            f"chooses image by image, at {ball(view)}; bars are 95 % intervals.{part}"
        )
        yield "fall", metric, caption, run_figures.fall_figure(metric, found, manifest.data.label)


def _low_end(lines: Iterable[Mapping[str, Sequence[Estimate]]]) -> float:
    every = (e.value for own in lines for points in own.values() for e in points)
    return min([0.0, *(value for value in every if value is not None)]) - 0.05


def _file_name(kind: str, place: int, model: str) -> str:
    """Return a name that is safe in a file system, a link and an id; the place keeps two models apart."""
    return f"{kind}-{place:02d}-{_plain(model)[:40]}".rstrip("-")


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-")
