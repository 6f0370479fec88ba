"""Examples that other models are tried on: found once, kept until the cells that need them are done."""

from __future__ import annotations

from collections.abc import Mapping

from iqa_attacks import AttackResult
from iqa_harness.cell import Runtime, craft
from iqa_harness.data.image_set import ImageSet
from iqa_harness.plan import Cell
from iqa_models import QualityModel


class Examples:
    """What the attack of one cell found, for that cell and for the transfer cells behind it.

    A plan lists the transfer cells right behind the cell that finds their examples, so one result is
    enough to hold. If that cell is in the store already, as when a run is resumed or a model is added,
    the same attack is run again with all its objectives: the same examples, by the same arithmetic.
    """

    def __init__(
        self,
        cells: Mapping[str, Cell],
        models: Mapping[str, QualityModel],
        images: ImageSet,
        runtime: Runtime,
    ) -> None:
        """Take the cells by key, the models by the names of the run, and the attacked images."""
        self._cells, self._models, self._images, self._runtime = cells, models, images, runtime
        self._wanted = {cell.surrogate.cell for cell in cells.values() if cell.surrogate}
        self._held: tuple[str, AttackResult] | None = None

    def of(self, cell: Cell) -> AttackResult | None:
        """Return what the attack found that a cell's rows are made of; None if nobody else needs it."""
        key = cell.surrogate.cell if cell.surrogate else cell.key
        if key not in self._wanted:
            return None
        if self._held is None or self._held[0] != key:
            self._held = None  # the former result is not needed while the next one is made
            source = self._cells[key]
            result = craft(source, self._models[source.label], self._images, self._runtime)
            self._held = key, result
        return self._held[1]
