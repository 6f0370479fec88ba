"""Costs and diagnostics on the command line: counts against hand calculation, clocks against fakes."""

import functools

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from iqa_harness.api.diagnose import diagnose
from iqa_harness.api.inputs import entrants_of
from iqa_harness.cli.command import App
from iqa_harness.cli.profile import profile
from iqa_harness.errors import RunError
from iqa_harness.reporting.insights import write_diagnostics
from iqa_models import BadModelOption, create_model
from iqa_models import profile as costs
from iqa_models.srm import DiagnosticRow, SRMConfig

SMALL = "srm?crop=64&shorter_side=64&width=32"


def run(command, *arguments):
    """Run one command by itself."""
    app = App()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_multiply_adds_of_a_convolution_and_a_product_are_counted_by_hand():
    """A 3x3 convolution costs 9 C_in C_out H W, a linear layer in x out, by child and in all."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 5))
    found = costs.count_macs(net, lambda copied: copied(torch.empty(2, 3, 4, 4, device="meta")))
    assert found["0"] == 2 * 9 * 3 * 8 * 16
    assert found["2"] == 2 * 8 * 16 * 5
    assert found[costs.TOTAL] == found["0"] + found["2"]
    assert next(net.parameters()).device.type == "cpu"


@pytest.mark.parametrize(("attention", "keys"), [("nystroem", 32), ("full", 144)])
def test_the_links_cost_what_the_formulas_say(attention, keys):
    """At 384 pixels the links need (Nq + Nk) r d twice, the system, leverage; or Nq Nk d twice."""
    (row,) = [
        r for r in costs.growth_table(SRMConfig(), sides=[384], repeats=None) if r.attention == attention
    ]
    width, tokens, rank = 128, 96**2 + 48**2 + 24**2, 32
    expected = 2 * tokens * keys * width
    if attention == "nystroem":
        # Three times: R, R V, the landmark block, and K^T K of the leverage scores.
        expected += 3 * (2 * rank * 144 * width + rank * rank * width + 144 * width * 32)
    assert row.tokens == tokens + 144
    assert row.macs == expected


def test_the_links_grow_linearly_and_full_attention_quadratically():
    """Fitted exponents of multiply-adds in the token count: about 1 against 2."""
    rows = costs.growth_table(SRMConfig(), repeats=None)
    found = {}
    for attention in ("nystroem", "full"):
        own = [row for row in rows if row.attention == attention]
        found[attention] = costs.fit_exponent([row.tokens for row in own], [row.macs for row in own])
    assert found["nystroem"] == pytest.approx(1, abs=0.05)
    assert found["full"] == pytest.approx(2, abs=0.01)


def test_the_fitted_exponent_is_the_slope_of_the_logarithms():
    """A power law gives its power back, noise its least-squares slope, and one size an error."""
    sizes = [1, 2, 4, 8]
    assert costs.fit_exponent(sizes, [3 * n**1.7 for n in sizes]) == pytest.approx(1.7)
    assert costs.fit_exponent([1, 10, 100], [1, 100, 100]) == pytest.approx(1)
    with pytest.raises(ValueError, match="two different"):
        costs.fit_exponent([2, 2], [1, 1])


@pytest.mark.parametrize("name", ["srm", "demo_resnet10t", "hyperiqa_efficientnet_lite0", "linear"])
def test_parts_add_up_to_the_whole(name):
    """Parameters and multiply-adds of the parts sum to the model's, for models of every kind."""
    model = create_model(name, **({"crop": 64, "shorter_side": 64} if name == "srm" else {}))
    side = 256 if name.startswith("hyperiqa") else 64
    parts = costs.count_cost(model, height=side, width=side)
    whole = parts[-1]
    assert whole.part == costs.TOTAL
    assert whole.parameters == sum(p.numel() for p in model.parameters())
    assert sum(part.parameters for part in parts[:-1]) == whole.parameters
    assert sum(part.macs for part in parts[:-1]) == whole.macs
    if name != "linear":
        neck = ["neck"] if name == "srm" else []
        assert [part.part for part in parts if part.macs] == ["trunk", *neck, "head", "whole"]


def test_twice_the_batch_costs_twice():
    """Multiply-adds are those of the whole batch."""
    model = create_model("srm", crop=64, shorter_side=64, neck="none")
    one, two = (costs.count_cost(model, height=64, width=64, batch=b)[-1].macs for b in (1, 2))
    assert two == 2 * one


class FakeCuda:
    """Stands in for torch.cuda: keeps a log, and a clock that a step moves on by 3 ms."""

    def __init__(self):
        self.log, self.now = [], 0.0

    def step(self):
        self.now += 3.0
        self.log.append("step")

    def synchronize(self):
        self.log.append("synchronize")

    def reset_peak_memory_stats(self):
        self.log.append("reset")

    def max_memory_allocated(self):
        return 1000

    def max_memory_reserved(self):
        return 2000

    def Event(self, enable_timing):  # noqa: N802 - torch's name
        assert enable_timing
        return FakeEvent(self)


class FakeEvent:
    """Remembers when it was recorded."""

    def __init__(self, cuda):
        self.cuda = cuda

    def record(self):
        self.cuda.log.append("record")
        self.when = self.cuda.now

    def elapsed_time(self, other):
        assert self.cuda.log[-1] == "synchronize"
        return other.when - self.when


def test_cuda_is_timed_by_events_after_fifty_warm_ups():
    """Warm up 50 times, wait, reset the statistics, time each step between events, wait, read."""
    cuda = FakeCuda()
    found = costs.measure_cuda(cuda.step, repeats=4, cuda=cuda)
    timed = ["record", "step", "record"] * 4
    assert cuda.log == ["step"] * 50 + ["synchronize", "reset", *timed, "synchronize"]
    assert found.seconds == pytest.approx([0.003] * 4)
    assert (found.peak_bytes, found.reserved_bytes) == (1000, 2000)


def test_the_cpu_is_timed_by_the_clock_it_is_given():
    """Warm-ups are not timed; the median is that of the repetitions."""
    ticks, calls = iter([0.0, 1.0, 10.0, 12.0, 20.0, 26.0]), []
    found = costs.measure_cpu(lambda: calls.append(1), repeats=3, warm_ups=2, clock=lambda: next(ticks))
    assert len(calls) == 5
    assert found.seconds == (1.0, 2.0, 6.0)
    assert found.median == 2.0
    assert found.reserved_bytes is None


def test_peak_memory_sees_what_a_step_needs():
    """A step that fills 64 MB and frees them leaves a peak of about that much."""
    if not costs.reset_peak_rss():
        pytest.skip("this system cannot reset a process's peak memory")
    found = costs.measure_cpu(lambda: torch.ones(16 * 2**20).sum(), repeats=2, warm_ups=1)
    assert 60e6 < found.peak_bytes < 200e6


def test_where_the_peak_cannot_be_reset_the_measurement_says_so(monkeypatch):
    """The number then is the process's own peak, and is called that."""
    monkeypatch.setattr(costs, "reset_peak_rss", lambda: False)
    assert "since it began" in costs.measure_cpu(lambda: None, repeats=1, warm_ups=0).memory


@pytest.mark.parametrize(
    ("name", "precision"), [("srm", "fp32"), ("srm", "bf16"), ("srm", "fp16"), ("demo_resnet10t", "bf16")]
)
def test_a_training_step_trains(name, precision):
    """It moves the weights it was given, in every precision, with and without auxiliary losses."""
    view = {"crop": 32, "shorter_side": 32, "width": 32} if name == "srm" else {}
    model = create_model(name, **view)
    before = [p.detach().clone() for p in model.head.parameters()]
    step = costs.training_step(model, torch.rand(2, 3, 32, 32), precision)
    for _ in range(3):  # the first scales of a loss may be too large, and such a step is left out
        step()
    moved = [not torch.equal(a, b) for a, b in zip(before, model.head.parameters(), strict=True)]
    assert any(moved)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_an_unknown_precision_is_refused():
    """The message lists those there are."""
    with pytest.raises(BadModelOption, match="fp32, bf16, fp16"):
        costs.autocast("cpu", "int8")


def test_the_command_prints_costs_times_and_growth(monkeypatch):
    """One call shows parts, both steps and both exponents, and states its convention."""
    small = functools.partial(costs.growth_table, sides=(192, 256))
    monkeypatch.setattr(costs, "growth_table", small)
    done = run(profile, SMALL, "--size", "64", "--repeats", "1", "--growth")
    assert done.exit_code == 0
    words = " ".join(done.output.split())
    for word in (
        "trunk",
        "neck",
        "head",
        "whole",
        "forward",
        "training step",
        "neck, forward",
        "FLOPs / 2",
        "nystroem",
        "full",
    ):
        assert word in words
    assert "full: cost ~ tokens^p, p of multiply-adds 2.00" in words


def test_ablations_and_settings_are_chosen_on_the_command_line():
    """NAME?ablation=... and any setting, lists as JSON, reach the model and its label."""
    name = SMALL + '&ablation=uniform_landmarks&rank=16&links=["4->1","3->1"]'
    (entrant,) = entrants_of(name)
    config = entrant.model.config
    assert (config.landmarks, config.rank, config.links) == ("uniform", 16, ("4->1", "3->1"))
    assert "uniform_landmarks" in entrant.label


def test_growth_needs_a_neck():
    """A model without SRM neck is refused by name of the option."""
    with pytest.raises(RunError, match="--growth"):
        run(profile, "demo_resnet10t", "--repeats", "0", "--growth")


def test_diagnostics_are_written_as_parquet(tmp_path, images):
    """There is a line a quantity; the file holds every row, and which model and data it is of."""
    file = tmp_path / "out" / "diagnostics.parquet"
    found = diagnose(SMALL, data=images, limit=3, batch=2, out=file, progress=False)
    assert "kappa" in {text[0] for text in found.shown()[1]}
    table = pq.read_table(file)
    assert table.column_names == ["table", "quantity", "place", "statistic", "value", "samples"]
    assert set(table["table"].to_pylist()) == {"conditioning", "scale", "gate"}
    assert table.schema.metadata[b"data"] == b"tiny"
    assert table.schema.metadata[b"images"] == b"3"
    assert [p.name for p in file.parent.iterdir()] == ["diagnostics.parquet"]


def test_parquet_gives_the_rows_back(tmp_path):
    """What is read equals what was written."""
    rows = [DiagnosticRow("gate", "entropy", "all", "median", 0.25, 7)]
    path = write_diagnostics(tmp_path / "d.parquet", rows, context=[("model", "m")])
    assert [DiagnosticRow(**row) for row in pq.read_table(path).to_pylist()] == rows


def test_a_model_without_neck_or_attention_cannot_be_diagnosed():
    """Another model is refused with a reason."""
    with pytest.raises(RunError, match="neither an SRM neck nor SMART-IQA's attention"):
        diagnose("demo_resnet10t")
