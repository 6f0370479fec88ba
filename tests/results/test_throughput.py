"""Speeds and the share of a card's peak, from a manifest's own numbers."""

from pathlib import Path

import pytest

from iqa_results import ResultStore, WorkerRecord, peak_flops, throughput

STORE = Path(__file__).parents[1] / "harness/first_edition"
H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture
def manifest():
    """A run of the first edition, which knows nothing of operations."""
    return ResultStore(STORE).read_manifest("first")


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        (H100, 989.4e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA H200", 989.4e12),
        ("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA A100 80GB PCIe", 312e12), ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12), ("Tesla V100-SXM2-16GB", 125e12), ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA GeForce RTX 4090 D", None), ("NVIDIA H100 NVL", None), ("NVIDIA L40", None),
        ("Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz", None), ("cpu", None),
    ],
)  # fmt: skip
def test_a_card_is_known_by_its_whole_name(name, peak):
    """A relative with another peak is not taken for it."""
    assert peak_flops(name) == peak


def test_a_run_without_operations_has_speeds_and_no_share(manifest):
    """Gradients over the seconds of the cells that made them; clean cells count nowhere."""
    for found in throughput(manifest):
        mine = [c for c in manifest.cells if c.model == found.model and c.attack != "clean" and c.forwards]
        following = [c for c in mine if c.backwards]
        assert found.gradients * sum(c.seconds for c in following) == pytest.approx(
            sum(c.backwards for c in following)
        )
        assert found.images * sum(c.seconds for c in mine) == pytest.approx(sum(c.count for c in mine))
        assert (found.share, found.gradients > 0) == (None, True)
    assert [found.model for found in throughput(manifest)] == ["linear", "other"]


def test_the_share_is_operations_over_time_over_the_peak(manifest):
    """Ten seconds, 30 evaluations alone of 1e12 and 100 gradients of 3e12: .033 of 989.4e12 a second."""
    cell = next(c for c in manifest.cells if c.attack != "clean" and c.model == "linear")
    cell = cell.model_copy(
        update={"device": "cuda:1", "seconds": 10.0, "count": 5, "forwards": 130, "backwards": 100}
    )
    worker = WorkerRecord(
        id="w", executor="processes", device="cuda:1", device_name=H100, threads=1, peak_memory=7 * 10**9,
        cells=1, seconds=10.0,
    )  # fmt: skip
    models = tuple(
        m.model_copy(update={"flops": (10**12, 3 * 10**12)} if m.name == "linear" else {})
        for m in manifest.models
    )
    made = manifest.model_copy(update={"cells": (cell,), "workers": (worker,), "models": models})
    (found,) = throughput(made)
    assert (found.model, found.device, found.gradients, found.images) == ("linear", H100, 10.0, 0.5)
    assert found.share == pytest.approx(330e12 / 10 / 989.4e12)
    assert found.peak_memory == 7 * 10**9
