"""Parameter totals to the unit and multiply-adds, counted on the meta device."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from iqa_models.hyper import HyperQuality

PARAMETERS = {
    ("hyperiqa", "last"): 27_375_369,
    ("smart_iqa_tiny", "last"): 28_979_523,
    ("smart_iqa_tiny", "afa"): 29_323_587,
    ("smart_iqa_tiny", "attention"): 29_521_479,
    ("smart_iqa_small", "last"): 50_297_427,
    ("smart_iqa_small", "afa"): 50_641_491,
    ("smart_iqa_small", "attention"): 50_839_383,
    ("smart_iqa_base", "last"): 88_389_761,
    ("smart_iqa_base", "afa"): 88_848_513,
    ("smart_iqa_base", "attention"): 89_111_941,
}

GIGA_MACS = {
    ("hyperiqa", "last"): 4.291,
    ("smart_iqa_tiny", "last"): 4.565,
    ("smart_iqa_tiny", "afa"): 4.582,
    ("smart_iqa_tiny", "attention"): 4.582,
    ("smart_iqa_small", "last"): 8.815,
    ("smart_iqa_small", "afa"): 8.832,
    ("smart_iqa_small", "attention"): 8.832,
    ("smart_iqa_base", "last"): 15.517,
    ("smart_iqa_base", "afa"): 15.539,
    ("smart_iqa_base", "attention"): 15.539,
}

STATE_ENTRIES = {
    ("hyperiqa", "last"): 355,
    ("smart_iqa_tiny", "last"): 206,
    ("smart_iqa_tiny", "attention"): 210,
    ("smart_iqa_small", "attention"): 366,
    ("smart_iqa_base", "afa"): 362,
    ("smart_iqa_base", "attention"): 366,
}


def count(module):
    """Count the parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("name", "fusion"), PARAMETERS)
def test_every_variant_has_its_published_size_and_cost(skeleton, name, fusion):
    """Parameters agree to the unit and the multiply-adds of one 224x224 crop within 0.1 %."""
    model = skeleton(name, fusion=fusion)
    assert isinstance(model, HyperQuality)
    assert count(model) == PARAMETERS[name, fusion]
    if (name, fusion) in STATE_ENTRIES:
        assert len(model.state_dict()) == STATE_ENTRIES[name, fusion]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert model.score_patches(torch.zeros(1, 3, 224, 224, device="meta")).shape == (1,)
    # The counter counts a multiply-add as two operations.
    assert counter.get_total_flops() / 2e9 == pytest.approx(GIGA_MACS[name, fusion], rel=1e-3)


def test_hyperiqa_has_its_published_size_part_by_part(skeleton):
    """Trunk, LDA, squeeze and each generator of HyperIQA have the counts of the authors' code."""
    model = skeleton("hyperiqa", fusion="last")
    head = model.head
    assert count(model.trunk) == 23_508_032
    assert count(head.lda) == 475_360
    assert [count(conv) for conv in head.lda.reduce] == [4_096, 16_384, 65_536]
    assert [count(linear) for linear in head.lda.project] == [16_400, 8_208, 4_112, 360_624]
    assert count(head.fusion) == 0
    assert count(head.hyper.squeeze) == 2_680_432
    assert [count(make) for make in head.hyper.weights] == [516_608, 129_152, 32_288, 8_072, 1_582]
    assert [count(make) for make in head.hyper.biases] == [12_656, 6_328, 3_164, 1_582, 113]
    assert count(model.trunk) + count(head.lda) == 23_983_392
    assert count(head.hyper) == 3_391_977


@pytest.mark.parametrize(
    ("name", "fusion", "trunk", "lda", "attention", "squeeze"),
    [
        ("smart_iqa_tiny", "attention", 27_517_818, 196_320, 197_892, 897_904),
        ("smart_iqa_tiny", "last", 27_517_818, 196_320, 0, 553_840),
        ("smart_iqa_small", "attention", 48_835_722, 196_320, 197_892, 897_904),
        ("smart_iqa_base", "attention", 86_741_176, 252_128, 263_428, 1_143_664),
        ("smart_iqa_base", "last", 86_741_176, 252_128, 0, 684_912),
    ],
)
def test_smart_has_its_published_size_part_by_part(skeleton, name, fusion, trunk, lda, attention, squeeze):
    """Trunk, LDA, attention, squeeze and generators of SMART-IQA have the counts of the author's code."""
    model = skeleton(name, fusion=fusion)
    head = model.head
    assert count(model.trunk) == trunk
    assert count(head.lda) == lda
    assert count(head.fusion) == attention
    assert count(head.hyper.squeeze) == squeeze
    assert count(head.hyper) - squeeze == 711_545


def test_the_papers_own_fusion_has_the_size_its_text_implies(skeleton):
    """SMART-IQA base with 1x1 projections to 512 channels has 90,162,565 parameters."""
    assert count(skeleton("smart_iqa_base", afa="project512")) == 90_162_565


@pytest.mark.parametrize(("name", "last", "top"), [("tiny", 11, 0.2), ("small", 23, 0.25), ("base", 23, 0.3)])
def test_drop_path_rises_linearly_over_the_blocks(skeleton, name, last, top):
    """The i-th of n blocks drops its path at rate r i / (n - 1)."""
    net = skeleton(f"smart_iqa_{name}", fusion="attention").trunk.net
    blocks = [block for stage in range(4) for block in getattr(net, f"layers_{stage}").blocks]
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
    assert len(rates) == last + 1
    assert rates == pytest.approx([top * i / last for i in range(last + 1)], abs=1e-6)
