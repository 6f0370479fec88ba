"""Examples that other models are tried on: found once, read back from the store, or found again.

An attacked image is kept as the XOR of its float32 bits with those of the clean image or of the ball's
edge, whichever is nearer pixel by pixel, bytes of equal weight side by side, compressed. Not one bit is
lost, and a pixel that the attack left alone or drove to the edge is zero.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from iqa_attacks import AttackResult, Cost, Example, Found
from iqa_harness.cells.compute import craft, to_tensor
from iqa_harness.cells.plan import Cell
from iqa_harness.data.image_set import ImageSet
from iqa_harness.errors import RunError
from iqa_harness.machine.runtime import Runtime
from iqa_models import QualityModel
from iqa_results import EXAMPLE_SCHEMA, BadPart, ResultStore

_Pixels = np.ndarray[Any, np.dtype[np.float32]]
_Bits = np.ndarray[Any, np.dtype[np.uint32]]
_Signs = np.ndarray[Any, np.dtype[np.int8]]


def recreate(
    cell: Cell, model: QualityModel, images: ImageSet, runtime: Runtime, store: ResultStore | None = None
) -> AttackResult:
    """Return what a cell's attack found: from the store if it keeps it, else by the same attack again.

    Args:
        cell: an attack's own cell, of a transfer the one that finds its examples.
        model: that cell's model, in eval mode on the runtime's device.
        images: the evaluated images of the cell's split.
        runtime: device and chunk sizes.
        store: where examples may be kept, None to run the attack in any case.

    Raises:
        AttackError, AttackFailed: the attack cannot be run on this model.
    """
    kept = stored(cell, images, runtime.device, store) if store is not None else None
    return kept or craft(cell, model, images, runtime)


def stored(cell: Cell, images: ImageSet, device: str, store: ResultStore) -> AttackResult | None:
    """Return what a store keeps of a cell's attack; None if nothing, or nothing whole."""
    if not store.has_examples(cell.key):
        return None
    try:
        return decode(store.read_examples(cell.key), cell, images, device)
    except BadPart:
        return None  # damaged, or of another version: the same attack finds the same examples


class Examples:
    """What attacks found, for the cells of one task and for the store.

    A task lists the cells that use an attack's examples together, so one result is enough to hold.
    """

    def __init__(
        self,
        find: Callable[[Cell], AttackResult],
        source_of: Callable[[Cell], Cell],
        shared: Collection[str],
    ) -> None:
        """Take the parts of a task.

        Args:
            find: runs the attack of a cell, or reads what it found.
            source_of: the cell whose attack finds a cell's examples; of most cells the cell itself.
            shared: keys of the cells whose examples somebody else uses too.
        """
        self._find, self._source_of, self._shared = find, source_of, shared
        self._held: tuple[str, AttackResult] | None = None
        self._failed: dict[str, str] = {}

    def of(self, cell: Cell) -> AttackResult | None:
        """Return what the attack found that a cell's rows are made of; None if nobody else needs it.

        Raises:
            RunError: the surrogate's attack has failed already.
        """
        source = self._source_of(cell)
        if source.key not in self._shared:
            return None
        if source.key in self._failed and cell.key != source.key:
            raise RunError(
                f"the attack on {source.label} that finds the examples failed: {self._failed[source.key]}"
            )
        if self._held is None or self._held[0] != source.key:
            self._held = None  # the former result is not needed while the next one is made
            self._held = source.key, self._find(source)
        return self._held[1]

    def give_up(self, cell: Cell, why: str) -> None:
        """Note that a cell failed for good: what needs its examples need not try its attack again."""
        self._failed[cell.key] = why


def used_elsewhere(cells: Iterable[Cell]) -> set[str]:
    """Return the keys of the cells whose attack is run for others' rows or on other models than their own."""
    return {c.surrogate.cell if c.surrogate else c.key for c in cells if c.transferred}


def encode(result: AttackResult, cell: Cell, images: ImageSet) -> pa.Table:
    """Return what an attack found as a table of EXAMPLE_SCHEMA."""
    uses: dict[tuple[int, int], list[dict[str, Any]]] = {}
    examples: dict[tuple[int, int], Example] = {}
    for place, found in enumerate(result.found):
        key = found.image, id(found.example)
        examples[key] = found.example
        use = {"place": place, "objective": found.objective, "steps": found.steps, "loss": found.loss}
        uses.setdefault(key, []).append(use)
    assert cell.attack is not None  # noqa: S101 - a clean cell has no examples
    threat = cell.attack.threat
    radius = threat.epsilon if threat.norm == "inf" else 0.0
    rows = []
    for key, example in examples.items():
        image = key[0]
        pixels = example.pixels.detach().cpu()
        if pixels.dtype != torch.float32:
            raise RunError(
                f"{cell.label}, {cell.attack_name}: examples are kept in float32 only, not {pixels.dtype}"
            )
        clean = to_tensor(images.read(cell.first + image), "cpu").numpy()
        nearest = _nearest(pixels.numpy(), clean, radius)
        rows.append(
            {
                "cell": cell.key,
                "image_id": images.records[cell.first + image].image_id,
                "image": image,
                "height": pixels.shape[1],
                "width": pixels.shape[2],
                "score": example.score,
                "restart": example.restart,
                "step": example.step,
                "uses": uses[key],
                "epsilon": radius,
                "nearest": nearest.tobytes(),
                "pixels": _planes(_bits(pixels.numpy()) ^ _bits(_ends(clean, nearest, radius))),
            }
        )
    cost = [[image, steps, *spent] for (image, steps), spent in result.cost.items()]
    summary = json.dumps({"clean": result.clean.tolist(), "cost": cost}, allow_nan=False)
    table = pa.Table.from_pylist(rows, schema=EXAMPLE_SCHEMA)
    return table.replace_schema_metadata({**EXAMPLE_SCHEMA.metadata, b"result": summary.encode()})


def decode(table: pa.Table, cell: Cell, images: ImageSet, device: str) -> AttackResult:
    """Return what `encode` was given, every value with the same bits.

    Raises:
        BadPart: the table does not fit the cell.
    """
    found: list[tuple[int, Found]] = []
    clean: dict[int, _Pixels] = {}
    try:
        summary = json.loads((table.schema.metadata or {})[b"result"])
        for row in table.to_pylist():
            image = row["image"]
            if image not in clean:
                clean[image] = to_tensor(images.read(cell.first + image), "cpu").numpy()
            nearest = np.frombuffer(row["nearest"], np.int8).reshape(clean[image].shape)
            ends = _ends(clean[image], nearest, row["epsilon"])
            bits = _unplanes(row["pixels"], clean[image].shape) ^ _bits(ends)
            pixels = torch.from_numpy(bits.view(np.float32)).to(device)
            example = Example(pixels, row["score"], row["restart"], row["step"])
            found += [
                (use["place"], Found(image, use["objective"], use["steps"], use["loss"], example))
                for use in row["uses"]
            ]
        cost = {(image, steps): Cost(*spent) for image, steps, *spent in summary["cost"]}
        scores = torch.tensor(summary["clean"], dtype=torch.float64)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise BadPart(f"examples of cell {cell.key[:12]} do not fit it ({error})") from error
    return AttackResult([each for _, each in sorted(found, key=lambda pair: pair[0])], cost, scores)


def _nearest(pixels: _Pixels, clean: _Pixels, radius: float) -> _Signs:
    if radius == 0:
        return np.zeros(pixels.shape, np.int8)
    signs: _Signs = np.clip(np.rint((pixels - clean) / np.float32(radius)), -1, 1).astype(np.int8)
    return signs


def _ends(clean: _Pixels, nearest: _Signs, radius: float) -> _Pixels:
    """Return what `nearest` points at, by the same float32 operations as the projection on the ball."""
    lower = np.maximum(clean - np.float32(radius), np.float32(0))
    upper = np.minimum(clean + np.float32(radius), np.float32(1))
    return np.where(nearest > 0, upper, np.where(nearest < 0, lower, clean))


def _bits(pixels: _Pixels) -> _Bits:
    return np.ascontiguousarray(pixels).view(np.uint32)


def _planes(bits: _Bits) -> bytes:
    return bits.astype("<u4").reshape(-1, 1).view(np.uint8).T.tobytes()


def _unplanes(content: bytes, shape: tuple[int, ...]) -> _Bits:
    planes = np.frombuffer(content, np.uint8).reshape(4, -1)
    return np.ascontiguousarray(planes.T).view("<u4").astype(np.uint32).reshape(shape)
