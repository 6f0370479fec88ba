"""The neck as a whole: schedule, precision, degenerate inputs, batches."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from iqa_models.srm import ABLATIONS, PlainNeck, SRMConfig, SRMNeck
from iqa_models.srm.neck import halved
from iqa_models.trunks import seeded

CHANNELS = (6, 8, 10, 12)
SMALL = {"width": 16, "heads": 2, "rank": 8}


def pyramid(batch=2, side=64, seed=0, scale=1.0):
    """Draw four stage maps of square images."""
    generator = torch.Generator().manual_seed(seed)
    sides = (side // 4, side // 8, side // 16, side // 32)
    return [
        scale * torch.randn(batch, c, s, s, generator=generator) for c, s in zip(CHANNELS, sides, strict=True)
    ]


def build(**settings):
    """Build a small neck in eval mode."""
    with seeded(0):
        return SRMNeck(CHANNELS, SRMConfig(**{**SMALL, **settings})).eval()


def test_the_default_schedule_updates_the_three_shallow_stages():
    """Links go from stage 4 to 1, 2 and 3; stage 4 is left as it is; alpha starts at 0.1."""
    neck = build()
    maps = [align(stage) for align, stage in zip(neck.align, pyramid(), strict=True)]
    mixed, traces = neck.mix(maps)
    assert [trace.link for trace in traces] == ["4->1", "4->2", "4->3"]
    assert torch.equal(mixed[3], maps[3])
    assert all(not torch.equal(mixed[s], maps[s]) for s in range(3))
    assert neck.alpha.tolist() == pytest.approx([0.1] * 3)


def test_updates_that_meet_are_summed_before_alpha():
    """Two links into stage 1 add what each adds alone; both read the maps as they came in."""
    both = build(links="4->1,3->1")
    maps = [align(stage) for align, stage in zip(both.align, pyramid(), strict=True)]
    alone = []
    for index, name in enumerate(("4->1", "3->1")):
        single = build(links=name)
        single.links[0].load_state_dict(both.links[index].state_dict())
        alone.append(single.mix(maps)[0][0] - maps[0])
    torch.testing.assert_close(both.mix(maps)[0][0] - maps[0], sum(alone))


def test_a_stage_without_update_is_left_as_it_is():
    """With one link only its target changes, and alpha = 0 changes nothing."""
    neck = build(links="4->2", residual_init=0.0)
    maps = [align(stage) for align, stage in zip(neck.align, pyramid(), strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(neck.mix(maps)[0], maps, strict=True))
    mixed = build(links="4->2").mix(maps)[0]
    assert [torch.equal(a, b) for a, b in zip(mixed, maps, strict=True)] == [True, False, True, True]


def test_the_quadratic_twin_has_the_same_weights():
    """attention="full" changes the operator only: equal names, shapes and values."""
    ours, twin = build().state_dict(), build(attention="full").state_dict()
    assert ours.keys() == twin.keys()
    assert all(torch.equal(ours[name], twin[name]) for name in ours)


def test_the_neck_is_near_its_quadratic_twin_with_all_keys_as_landmarks():
    """With r = N_k the two outputs differ by what the ridge does, and by much less than the update itself."""
    maps = pyramid(side=96)
    with torch.no_grad():
        ours, twin = build(rank=9), build(attention="full")
        plain = build(attention="full", residual_init=0.0)(maps).output
        gap = (ours(maps).output - twin(maps).output).norm()
        assert gap < 0.05 * (twin(maps).output - plain).norm()


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_runs_forward_and_backward(name):
    """In training mode each gives finite outputs, losses and gradients of every parameter it uses."""
    neck = build(**{**ABLATIONS[name]}).train()
    trace = neck(pyramid())
    (trace.output.square().mean() + sum(trace.losses.values())).backward()
    assert torch.isfinite(trace.output).all()
    for parameter in neck.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


def test_ablations_take_away_what_they_name():
    """No rescaler, no DyT: no such weights; no regulariser: losses of zero; no cap: factor 1."""
    assert "rescaler" not in build(rescaler=False)(pyramid()).losses
    assert not any("rescaler" in name for name in build(rescaler=False).state_dict())
    assert not any(name.startswith("dyt") for name in build(dyt=False).state_dict())
    losses = build(**ABLATIONS["no_gate_regulariser"])(pyramid()).losses
    assert losses["entropy"] == losses["balance"] == 0
    assert (build(gain_cap=False)(pyramid(scale=100.0)).gate.factor == 1).all()
    assert (build()(pyramid(scale=100.0)).gate.factor < 1).all()


@pytest.mark.parametrize("settings", [{}, {"solver": "neumann"}, {"equilibrate": True}, {"kmeans": True}])
@pytest.mark.parametrize("rank", [3, 4, 64])
@pytest.mark.parametrize("precision", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["repeated", "constant", "zero", "large", "pixel"])
def test_degenerate_maps_give_finite_outputs_and_gradients(settings, rank, precision, kind):
    """Equal tokens, equal landmarks, zeros, huge values, one key; r below, at and above N_k: no NaN."""
    maps = pyramid(1, side=32 if kind == "pixel" else 64)
    if kind == "repeated":
        maps = [stage[..., :1].expand_as(stage).clone() for stage in maps]
    elif kind == "constant":
        maps = [torch.ones_like(stage) for stage in maps]
    elif kind in ("zero", "large"):
        maps = [stage * (0.0 if kind == "zero" else 1e4) for stage in maps]
    maps = [stage.requires_grad_() for stage in maps]
    neck = build(rank=rank, **settings).train()
    with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
        trace = neck(maps)
        loss = trace.output.float().square().mean() + sum(trace.losses.values())
    loss.backward()
    assert torch.isfinite(trace.output).all()
    assert all(torch.isfinite(stage.grad).all() for stage in maps)
    assert all(torch.isfinite(p.grad).all() for p in neck.parameters())


@pytest.mark.parametrize("solver", ["default", "svd", "lu", "neumann"])
def test_maps_of_zeros_with_zero_biases_pass(solver):
    """Keys of zeros: leverage 0 everywhere, W = 1/r, and still a finite output and gradient."""
    neck = build(solver=solver)
    with torch.no_grad():
        for align in neck.align:
            align.bias.zero_()
    maps = [torch.zeros_like(stage, requires_grad=True) for stage in pyramid()]
    trace = neck(maps)
    trace.output.sum().backward()
    assert torch.isfinite(trace.output).all()
    assert all(torch.isfinite(stage.grad).all() for stage in maps)


class Recorder(TorchDispatchMode):
    """Keeps the type of every floating tensor that goes into or comes out of a linear-algebra kernel."""

    WATCHED = ("linalg", "cholesky", "triangular", "svd")

    def __init__(self):
        super().__init__()
        self.types, self.names, self.products = set(), set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        tensors = [*args, *(found if isinstance(found, tuple | list) else [found])]
        kinds = {t.dtype for t in tensors if isinstance(t, torch.Tensor) and t.is_floating_point()}
        name = func.name()
        if any(word in name for word in self.WATCHED) and "vector_norm" not in name:
            self.types |= kinds
            self.names.add(name)
        elif "mm" in name:
            self.products |= kinds
        return found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("solver", ["default", "svd", "lu", "neumann"])
@pytest.mark.parametrize("weights", ["float32", "half"])
def test_the_critical_path_is_float32_under_autocast(dtype, solver, weights):
    """Cholesky, SVD, LU and norms see float32 only, forward and backward; large products are in half."""
    neck = build(solver=solver, rank=3)
    maps = pyramid()
    if weights == "half":
        neck, maps = neck.to(dtype), [stage.to(dtype) for stage in maps]
    with Recorder() as seen:
        with torch.autocast("cpu", dtype=dtype, enabled=weights == "float32"):
            trace = neck(maps)
        (trace.output.float().square().mean() + sum(trace.losses.values())).backward()
    assert seen.names
    assert seen.types == {torch.float32}
    assert dtype in seen.products
    for link in trace.links:
        assert {part.dtype for part in (*link.system[:3], link.rms, link.gamma)} == {torch.float32}
    gate = trace.gate
    parts = (gate.output, gate.weights, gate.entropy, gate.rms, gate.factor, *trace.losses.values())
    assert {part.dtype for part in parts} == {torch.float32}


def test_half_precision_stays_near_single():
    """Under bf16 autocast the fused map is within a few per cent of the float32 one."""
    neck, maps = build(), pyramid()
    with torch.no_grad():
        exact = neck(maps).output
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = neck(maps).output
    assert (found - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("settings", [{}, {"kmeans": True}, {"solver": "neumann"}, {"attention": "full"}])
def test_an_image_is_mixed_alike_in_every_batch(settings):
    """In eval mode outputs for batches of 5, 2 and 1 agree to float32 rounding."""
    neck, maps = build(**settings), pyramid(batch=5, side=128)
    with torch.no_grad():
        whole = neck(maps).output
        for size in (1, 2):
            parts = [neck([stage[i : i + size] for stage in maps]).output for i in range(0, 5, size)]
            torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-5, atol=1e-6)


def test_pooling_halves_deep_maps_at_random():
    """In training about half of the passes see pooled keys, by the generator; at evaluation none does."""
    neck, maps = build(kv_pooling="training"), pyramid(1, side=96)

    def keys_seen(generator):
        return neck(maps, generator).links[0].system.matrix.shape[-1]

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        assert {keys_seen(generator) for _ in range(10)} == {8}
        neck.train()
        seen = [keys_seen(generator) for _ in range(200)]
    assert set(seen) == {8, 4}
    assert seen.count(4) == pytest.approx(100, abs=25)


def test_pooling_averages_two_by_two():
    """Even maps are averaged over 2x2 pixels; a single pixel stays."""
    maps = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert halved(maps).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert halved(maps[..., :1, :1]).shape == (1, 1, 1, 1)


def test_evaluation_draws_nothing_and_changes_nothing():
    """An eval pass leaves the generator and every buffer as they were; a training pass moves the EMA."""
    neck, maps = build(kv_pooling="training", landmarks="sampled"), pyramid()
    state, before = torch.get_rng_state(), {n: b.clone() for n, b in neck.named_buffers()}
    neck(maps)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(b, before[n]) for n, b in neck.named_buffers())
    neck.train()(maps)
    assert any(not torch.equal(b, before[n]) for n, b in neck.named_buffers())


def test_the_losses_are_weighted_by_the_config():
    """Doubling the weights doubles the losses of one and the same pass."""
    weights = {"rescaler_weight": 1e-3, "entropy_weight": 1e-2, "balance_weight": 1e-2}
    ones = build()(pyramid()).losses
    twos = build(**{name: 2 * value for name, value in weights.items()})(pyramid()).losses
    assert set(ones) == {"rescaler", "entropy", "balance"}
    for name in ones:
        torch.testing.assert_close(twos[name], 2 * ones[name])


def test_the_plain_neck_is_the_aligned_last_stage_with_the_same_weights():
    """The baseline's one convolution equals the one the SRM neck of the same seed has for stage 4."""
    with seeded(0):
        plain = PlainNeck(CHANNELS, SRMConfig(**SMALL))
    neck, maps = build(), pyramid()
    assert set(plain.state_dict()) <= set(neck.state_dict())
    torch.testing.assert_close(plain(maps).output, neck.align[3](maps[3]))
    assert plain(maps).losses == {}
