"""Fused stages of residual networks: the same function as the blocks they stand for, and its own kernels."""

import copy
import importlib.util
import math

import pytest
import torch
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from iqa_attacks.gradients import score_and_gradient
from iqa_models import ModelSpec, QualityModel
from iqa_models.frozen import frozen, fused
from iqa_models.fused import Stage, can_fuse, fuse


class Small(QualityModel):
    """A narrow ResNet whose batch norms have something to fold."""

    def __init__(self, block=Bottleneck, **options):
        super().__init__(
            ModelSpec(
                name="small", summary="a narrow ResNet", score_range=(0, 1), input_protocol="whole image",
                mean=(0.5,) * 3, std=(0.25,) * 3, source="this test", min_size=32,
            )
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            width = 16 if block is Bottleneck else 64
            self.trunk = ResNet(block, (2, 1, 2, 1), 1, channels=(8, 8, 16, 16), base_width=width, **options)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    for tensor, low in (
                        (module.weight, 0.5),
                        (module.bias, -0.2),
                        (module.running_mean, -0.2),
                    ):
                        nn.init.uniform_(tensor, low, low + 0.4)

    def predict(self, images):
        return torch.sigmoid(self.trunk(self.normalise(images)).squeeze(1))


def pictures(count=3, side=48):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def both(block, **options):
    plain = frozen(Small(block, **options).eval())
    changed = copy.deepcopy(plain)
    return plain, changed, fuse(changed, torch.float32)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_stages_are_the_blocks_they_stand_for(block):
    """Scores, and the gradients that come back by hand, differ from autograd's by float32 rounding."""
    plain, changed, stages = both(block)
    assert stages == 4
    assert not any(module.training for module in changed.modules())
    assert [type(child) for child in changed.trunk.children()].count(Stage) == 4
    (scores, slopes), (scores2, slopes2) = (
        score_and_gradient(m, pictures(), chunk=3) for m in (plain, changed)
    )
    assert torch.allclose(scores2, scores, rtol=0, atol=1e-6)
    assert float((slopes2 - slopes).abs().sum()) <= 1e-5 * float(slopes.abs().sum())
    again = score_and_gradient(changed, pictures(), chunk=3)
    assert torch.equal(again.gradients, slopes2)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_the_way_back_is_that_of_differences(block):
    """In float64, where a central difference is exact to eight digits."""
    _, changed, _ = both(block)
    stage = changed.trunk.layer2
    blocks = [
        b._replace(
            convolutions=[c._replace(weight=c.weight.double()) for c in b.convolutions],
            biases=[bias.double() for bias in b.biases],
            shortcut=b.shortcut and b.shortcut._replace(weight=b.shortcut.weight.double()),
        )
        for b in stage.blocks
    ]
    exact = Stage(blocks, torch.float64)
    channels = blocks[0].convolutions[0].weight.shape[1]
    maps = (
        torch.randn(1, channels, 6, 6, generator=torch.Generator().manual_seed(2)).double().requires_grad_()
    )
    assert torch.autograd.gradcheck(exact, maps, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"act_layer": nn.SiLU}, {"block_args": {"attn_layer": "se"}}, {"drop_path_rate": 0.2}]
)
def test_what_is_not_plain_is_left(options):
    """Other activations, attention, dropped paths (where a rate is): no stage with them is fused."""
    _, changed, stages = both(BasicBlock, **options)
    assert stages < 4
    for child in changed.trunk.children():
        for block in child if isinstance(child, nn.Sequential) else ():
            assert isinstance(block, BasicBlock)
    plain = frozen(Small(BasicBlock, **options).eval())
    given = [score_and_gradient(m, pictures(), chunk=3).gradients for m in (plain, changed)]
    assert torch.allclose(*given, rtol=1e-4, atol=1e-9)


def test_batch_norms_that_stand_and_blocks_that_are_watched_are_left():
    """Without folding there is no bias to fuse; a hook wants to see its block."""
    assert fuse(frozen(Small().eval(), fold=False), torch.float32) == 0
    made = frozen(Small().eval())
    made.trunk.layer1[0].conv2.register_forward_hook(lambda *given: None)
    assert fuse(made, torch.float32) == 3
    assert not can_fuse(torch.device("cpu"))


class Picking(Small):
    """Calls the blocks of a stage one by one."""

    def predict(self, images):
        for block in self.trunk.layer1:
            assert isinstance(block, nn.Module)
        return super().predict(images)


class Counting(Small):
    """Its score says how its stages are made."""

    def predict(self, images):
        return super().predict(images) * (1 + 0.5 * isinstance(self.trunk.layer1, Stage))


@pytest.mark.parametrize("model", [Picking, Counting])
def test_a_model_that_fusing_would_change_stays_as_it_is(model):
    """One that breaks without its blocks, and one that gives another score."""
    made = frozen(model().eval())
    assert fused(made, torch.float16) is made
    assert not any(isinstance(module, Stage) for module in made.modules())


def test_a_model_that_stays_the_same_is_fused_in_the_precision_asked_for():
    made = fused(frozen(Small().eval()), torch.float16)
    stages = [module for module in made.modules() if isinstance(module, Stage)]
    assert [stage.dtype for stage in stages] == [torch.float16] * 4


def test_there_is_no_second_derivative_to_be_wrong():
    """What is written by hand goes back once; going back through it again is an error."""
    _, changed, _ = both(Bottleneck)
    leaf = pictures().requires_grad_()
    (slope,) = torch.autograd.grad(changed.predict(leaf).sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.square().sum().backward()


def test_half_precision_passes_through_a_stage():
    """In float16 a stage adds and rectifies in float32, and rounds once a map."""
    plain, half = frozen(Small().eval()), frozen(Small().eval(), precision="float16")
    assert fuse(half, torch.float16) == 4
    slopes, halved = (score_and_gradient(m, pictures(), chunk=3).gradients for m in (plain, half))
    assert halved.dtype == torch.float32
    assert 0 < float((halved - slopes).abs().sum()) <= 0.05 * float(slopes.abs().sum())


@pytest.fixture
def kernels(monkeypatch):
    """The kernels, run by Triton's interpreter on the CPU."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found = importlib.util.find_spec("iqa_models.kernels")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("added", [False, True])
def test_kernels_are_what_torch_computes(kernels, dtype, added):
    """Every number, those of a last, partly filled program included; what is no number stays none."""

    def drawn(seed):
        maps = torch.randn(3, 24, 7, 9, generator=torch.Generator().manual_seed(seed)).to(dtype)
        return maps.contiguous(memory_format=torch.channels_last)

    maps, other, slopes = drawn(0), drawn(1) if added else None, drawn(2)
    maps[0, 0, 0, 0] = math.nan
    bias = torch.randn(24, generator=torch.Generator().manual_seed(3))
    total = maps.float() + bias.view(-1, 1, 1) + (0 if other is None else other.float())
    wanted = torch.relu(total).to(dtype)
    kernels.rectify(maps, bias, other)
    assert torch.equal(maps.nan_to_num(9), wanted.nan_to_num(9)) and maps[0, 0, 0, 0].isnan()
    summed = slopes.float() + (0 if other is None else other.float())
    wanted = torch.where(maps > 0, summed, 0).to(dtype)
    kernels.mask(slopes, maps, other)
    assert torch.equal(slopes, wanted)
