"""What the neck does to real images, as rows of one long table (paper tables 1 and 2, figures 3 and 4)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iqa_models.srm.config import STAGES, SRMConfig
from iqa_models.srm.neck import NeckTrace
from iqa_models.srm.solve import condition_number, equilibrated, relative_residual

QUANTILES = {"p05": 0.05, "p10": 0.1, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95}
"""Name to quantile, beside min, max and mean."""

EVERYWHERE = "all"
"""Place of a row that pools all links or stages."""


class DiagnosticRow(NamedTuple):
    """One number about the neck."""

    table: str
    """``conditioning`` (table 1), ``scale`` (table 2, figure 3) or ``gate`` (figure 4)."""
    quantity: str
    """Such as ``kappa``, ``gamma`` or ``entropy``."""
    place: str
    """Link (``4->1``), stage (``stage 1``) or ``all``."""
    statistic: str
    """A quantile's name, ``min``, ``max``, ``mean``, ``share`` or ``count``."""
    value: float
    """The number."""
    samples: int
    """How many values it summarises."""


class Diagnostics:
    """Collects what forward passes report, and summarises it.

    Quantities of a system have a value an image and head, those of the scale one a batch and head, those
    of the gate one an image.
    """

    def __init__(self, config: SRMConfig) -> None:
        self.config = config
        self._batches = 0
        self._values: dict[tuple[str, str, str], list[Tensor]] = {}

    def add(self, trace: NeckTrace) -> None:
        """Take in one forward pass."""
        self._batches += 1
        for link in trace.links:
            if link.system is not None:
                matrix, right, solution, fell_back = link.system
                self._put("conditioning", "kappa", link.link, condition_number(matrix))
                if self.config.equilibrate:
                    solved = condition_number(equilibrated(matrix).matrix)
                    self._put("conditioning", "kappa_equilibrated", link.link, solved)
                residual = relative_residual(matrix, solution, right)
                self._put("conditioning", "residual", link.link, residual)
                if self.config.solver == "neumann":
                    self._put("conditioning", "neumann_fallback", link.link, fell_back)
            unit = self.config.head_width**0.5
            self._put("scale", "rms_before", link.link, link.rms / unit)
            self._put("scale", "rms_after", link.link, link.rms * link.gamma / unit)
            self._put("scale", "gamma", link.link, link.gamma)
        if trace.gate is not None:
            gate = trace.gate
            self._put("gate", "entropy", EVERYWHERE, gate.entropy)
            self._put("gate", "below_entropy_floor", EVERYWHERE, gate.entropy < self.config.entropy_floor)
            self._put("gate", "cap_factor", EVERYWHERE, gate.factor)
            self._put("gate", "rms_before_cap", EVERYWHERE, gate.rms)
            for stage in range(STAGES - 1):
                self._put("gate", "routing_mass", f"stage {stage + 1}", gate.weights[:, stage])

    def rows(self) -> list[DiagnosticRow]:
        """Return every statistic of every quantity, link by link and over all links.

        Raises:
            ValueError: nothing was added.
        """
        if not self._batches:
            raise ValueError("no images to diagnose: the loader is empty")
        pooled: dict[tuple[str, str, str], list[Tensor]] = {}
        for (table, quantity, place), values in self._values.items():
            pooled.setdefault((table, quantity, place), []).extend(values)
            if "->" in place:
                pooled.setdefault((table, quantity, EVERYWHERE), []).extend(values)
        return [
            DiagnosticRow(*where, statistic, value, sum(part.numel() for part in values))
            for where, values in pooled.items()
            for statistic, value in summary(torch.cat(values)).items()
        ]

    def _put(self, table: str, quantity: str, place: str, values: Tensor) -> None:
        kept = values.detach().flatten().cpu()  # first: not every device has double precision
        exact = kept if kept.dtype is torch.bool else kept.double()
        self._values.setdefault((table, quantity, place), []).append(exact)


def summary(values: Tensor) -> dict[str, float]:
    """Summarise values (N,): share and count of true ones, else mean, extremes and quantiles."""
    if values.dtype is torch.bool:
        return {"share": float(values.double().mean()), "count": float(values.sum())}
    # Not by torch.quantile, which refuses more than 2**24 values.
    found = dict(zip(QUANTILES, np.quantile(values.numpy(), list(QUANTILES.values())).tolist(), strict=True))
    return {
        "mean": float(values.mean()),
        "min": float(values.min()),
        **found,
        "max": float(values.max()),
    }
