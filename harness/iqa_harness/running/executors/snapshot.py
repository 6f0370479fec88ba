"""Everything a worker needs, as a folder of plain files: it makes suite, images and models again from them.

::

    session.json            suite, store, chunk sizes, models by name, plugins
    data.json               which images, by id, with what must be found under each
    models/0/, models/1/    a checkpoint each: card and safetensors, no pickle
    plugins/0/, plugins/1/  the user's files, for nodes that do not have them where the driver has
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from iqa_attacks.defences.defended import defend
from iqa_harness.cells.plan import Cell, CellRef, Rival, Work, list_cells
from iqa_harness.cells.universal import TrainedAttacks
from iqa_harness.data import DataCard, ImageRecord, ImageSet, open_data
from iqa_harness.data.embedded.built_set import StoredImageSet
from iqa_harness.data.files.file_set import FileImageSet
from iqa_harness.data.files.pixel_cache import PixelCache
from iqa_harness.data.files.resized import ResizedImageSet
from iqa_harness.entrants.defended import defences_of
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.entrants.plugins import run_plugin
from iqa_harness.entrants.sources import sources_of
from iqa_harness.errors import RunError
from iqa_harness.evidence.model_checks import AGREES, SLOPE
from iqa_harness.machine.runtime import Runtime
from iqa_harness.machine.tuning import read_choices
from iqa_harness.running.executors.bench import Bench
from iqa_harness.running.model_records import Before
from iqa_harness.running.task import Place
from iqa_models import QualityModel, list_models, load_checkpoint, save_checkpoint
from iqa_models.checkpoint import read_card
from iqa_results import ModelRecord, RemotePath, ResultStore
from iqa_suites import Suite

SESSION, DATA = "session.json", "data.json"

Fetch = Callable[[str], bytes]
"""Returns a file of weights by its path in the snapshot, where it was not sent with the rest."""


def write_snapshot(
    folder: Path,
    work: Work,
    entrants: Sequence[tuple[Entrant, ModelRecord]],
    store: ResultStore,
    runtime: Runtime,
) -> Path:
    """Write what workers need into a folder: of the models with what was measured of them before the run.

    Raises:
        RunError: a model or image set that only this process can make.
    """
    models = []
    for number, (entrant, record) in enumerate(entrants):
        bare = entrant.model.bare
        if bare.spec.name not in list_models():
            raise RunError(
                f"model {entrant.label!r} is an object of this process: no worker can make it again; "
                "register it in a --plugin file, or use the inline executor"
            )
        save_checkpoint(bare, folder / "models" / str(number), training={})
        before = {name: check for name, check in record.checks.items() if name in (AGREES, SLOPE)}
        named = {"label": entrant.label, "sha256": entrant.sha256, "defences": defences_of(entrant.model)}
        models.append({**named, "checks": before})
    plugins = []
    files = dict.fromkeys(path for entrant, _ in entrants for path in entrant.plugins)
    for number, path in enumerate(files):
        sources = sources_of(path)
        hashes = sources.hashes()
        for name in hashes:
            copy = folder / "plugins" / str(number) / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((sources.top / name).read_bytes())
        plugins.append({"path": str(path.absolute()), "files": hashes})
    root = store.root if isinstance(store.root, RemotePath) else store.root.resolve()
    session = {
        "suite": work.suite.model_dump(mode="json", by_alias=True),
        "suite_sha256": work.suite.sha256,
        "store": str(root),
        "chunk": runtime.chunk,
        "choices": [choice.model_dump(mode="json") for choice in runtime.choices],
        "models": models,
        "rivals": work.rivals,
        "plugins": plugins,
    }
    for name, content in ((SESSION, session), (DATA, _data(work))):
        (folder / name).write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
    return folder


def _data(work: Work) -> dict[str, Any]:
    images = work.images
    parts: dict[str, ImageSet] = {"images": images, "validation": work.validation, **work.training}
    content: dict[str, Any] = {}
    if isinstance(images, ResizedImageSet):
        content["resize"] = images.rule
        parts = {name: p.source if isinstance(p, ResizedImageSet) else p for name, p in parts.items()}
        images = images.source
    content |= {"card": asdict(images.card), "fingerprint": images.fingerprint}
    listed: Callable[[ImageSet], list[Any]]
    if isinstance(images, FileImageSet):
        cache, listed = images.cache, _files
        content["root"] = str(images.root.resolve())
        content["cache"] = [str(cache.folder.resolve()), cache.limit] if cache else None
    elif isinstance(images, StoredImageSet):
        listed = _ids
        content["cache"] = str(images.folder.resolve().parent.parent)
    else:
        raise RunError(
            f"image set {images.card.name!r} is an object of this process: use the inline executor"
        )
    return {**content, "parts": {name: listed(part) for name, part in parts.items()}}


def _ids(images: ImageSet) -> list[str]:
    return [record.image_id for record in images.records]


def _files(images: ImageSet) -> list[list[Any]]:
    """Return record, file and raw label of every image."""
    assert isinstance(images, FileImageSet)  # noqa: S101 - a split of a set of files is one too
    numbered = enumerate(zip(images.records, images.files, strict=True))
    return [[list(record), str(file.resolve()), images.raw_label(i)] for i, (record, file) in numbered]


def open_snapshot(folder: Path, place: Place, fetch: Fetch | None = None) -> Bench:
    """Make a worker's bench of a snapshot; models are loaded when they are first needed.

    Raises:
        RunError: a plugin or model came out as another one than the driver's.
        DataError: the images are not there, or are others.
        ModelError: a model cannot be made.
    """
    session = json.loads((folder / SESSION).read_text(encoding="utf-8"))
    try:
        suite = Suite.model_validate(session["suite"])
    except ValidationError as error:
        raise RunError(
            "this worker cannot read the suite; an attack of your own must be in a package that is installed "
            f"there (entry points), or take the inline executor: {error.errors()[0]['msg']}"
        ) from error
    if suite.sha256 != session["suite_sha256"]:
        raise RunError(
            "this worker reads the suite otherwise than the driver: another version of iqa-harness"
        )
    for number, plugin in enumerate(session["plugins"]):
        own = Path(plugin["path"])
        files = plugin["files"]
        same = own.is_file() and sources_of(own).hashes() == files
        run_plugin(own if same else folder / "plugins" / str(number) / next(iter(files)), own.stem)
    parts = _open_data(json.loads((folder / DATA).read_text(encoding="utf-8")))
    images, validation = parts.pop("images"), parts.pop("validation")
    rivals = [Rival(*rival) for rival in session["rivals"]]
    listed = list_cells(suite, rivals, images, validation, TrainedAttacks(parts))
    cells = {cell.key: cell for cell in listed}
    work = Work(suite, images, validation, tuple(listed))

    def cell_of(ref: CellRef) -> Cell:
        if ref.key not in cells:
            raise RunError(
                f"{ref.label}, {ref.attack_name}, images from {ref.first}: this worker would compute "
                "another cell than was planned; its iqa-harness or its data differ from the driver's"
            )
        return cells[ref.key]

    return Bench(
        _Models(folder, session["models"], place.device, fetch),
        work.images_of,
        cell_of,
        ResultStore(session["store"]),
        Runtime(device=place.device, chunk=session["chunk"], choices=read_choices(session["choices"])),
        Before(images, suite.eot_samples, {model["label"]: model["checks"] for model in session["models"]}),
    )


def _open_data(content: dict[str, Any]) -> dict[str, ImageSet]:
    """Return the attacked images, those of the validation split, and by split those for training."""
    plain = _subsets(content)
    parts = {name: plain(part) for name, part in content["parts"].items()}
    if "resize" not in content:
        return parts
    rule = content["resize"]
    return {name: ResizedImageSet(part, rule, getattr(part, "cache", None)) for name, part in parts.items()}


def _subsets(content: dict[str, Any]) -> Callable[[list[Any]], ImageSet]:
    """Return what makes an image set of a list of images in a snapshot."""
    card = content["card"]
    if "root" in content:
        made = DataCard(**{**card, "mos_range": tuple(card["mos_range"]), "notes": tuple(card["notes"])})
        cached = content["cache"]
        # A node without the driver's cache decodes the files itself.
        cache = PixelCache(Path(cached[0]), cached[1]) if cached and Path(cached[0]).is_dir() else None
        return lambda part: FileImageSet(
            Path(content["root"]),
            made,
            content["fingerprint"],
            [ImageRecord(*record) for record, _, _ in part],
            [Path(file) for _, file, _ in part],
            [raw for _, _, raw in part],
            cache,
        )
    place_of_cache = Path(content["cache"])
    whole = open_data(
        card["name"], cache_dir=place_of_cache if place_of_cache.is_dir() else None, progress=False
    )
    if whole.fingerprint != content["fingerprint"]:
        raise RunError(f"data set {card['name']!r} comes out otherwise here than where the run was started")
    place = {record.image_id: i for i, record in enumerate(whole.records)}
    return lambda part: whole.subset([place[image_id] for image_id in part])


class _Models:
    """The models of a snapshot by their names in the run, each loaded once."""

    def __init__(
        self, folder: Path, models: Sequence[dict[str, Any]], device: str, fetch: Fetch | None
    ) -> None:
        self._named = {model["label"]: (folder / "models" / str(i), model) for i, model in enumerate(models)}
        self._device, self._fetch, self._root = device, fetch, folder
        self._loaded: dict[str, QualityModel] = {}

    def __call__(self, label: str) -> QualityModel:
        """Return a model on the worker's device.

        Raises:
            RunError: it is not bit by bit the driver's.
        """
        if label not in self._loaded:
            folder, said = self._named[label]
            loaded = self._load(folder)
            model = defend(loaded, said["defences"]) if said["defences"] else loaded
            if Entrant(label, model).sha256 != said["sha256"]:
                raise RunError(
                    f"model {label!r} comes out otherwise here than where the run was started: another "
                    "version of iqa-harness, or of a plugin"
                )
            self._loaded[label] = model.to(self._device)
        return self._loaded[label]

    def _load(self, folder: Path) -> QualityModel:
        weights = folder / read_card(folder).file_name
        if self._fetch is None or weights.exists():
            return load_checkpoint(folder)
        weights.write_bytes(self._fetch(weights.relative_to(self._root).as_posix()))
        try:
            return load_checkpoint(folder)
        finally:
            weights.unlink()
