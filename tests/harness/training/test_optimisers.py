"""Parameter groups: who is in which, at what rate, and what an author's bug does to them."""

import pytest
import torch

from iqa_harness.errors import TrainingError
from iqa_harness.training.config import TrainConfig, changed, load_preset
from iqa_harness.training.optimisers import create_optimiser, parameter_groups, set_rates
from iqa_models import create_model


def on_meta(config):
    """Return the settings' model without memory or downloads."""
    with torch.device("meta"):
        return create_model(config.model, **{**config.options, "pretrained": False})


def sizes(optimiser):
    """Return the number of parameters of each group."""
    return {g["group"]: sum(p.numel() for p in g["params"]) for g in optimiser.param_groups}


@pytest.mark.parametrize("name", ["hyperiqa_paper", "hyperiqa_author_code"])
def test_hyperiqas_groups_have_the_published_sizes(name):
    """Trunk with LDA 23,983,392 parameters at 2e-5, the rest 3,391,977 at 2e-4, in Adam, L2 5e-4."""
    config = load_preset(name)
    optimiser = create_optimiser(on_meta(config), config)
    assert sizes(optimiser) == {"trunk": 23_983_392, "head": 3_391_977}
    assert type(optimiser) is torch.optim.Adam
    assert set_rates(optimiser, config, 0, 10) == pytest.approx({"trunk": 2e-5, "head": 2e-4})
    assert {group["weight_decay"] for group in optimiser.param_groups} == {5e-4}


def test_hyperiqas_code_forgets_the_head_from_the_second_epoch():
    """Its rebuilt optimisers hold an empty head group, the paper's preset never does."""
    author, paper = load_preset("hyperiqa_author_code"), load_preset("hyperiqa_paper")
    model = on_meta(author)
    for epoch in range(1, 17):
        head = 3_391_977 if epoch == 1 else 0
        assert sizes(create_optimiser(model, author, epoch)) == {"trunk": 23_983_392, "head": head}
    assert sizes(create_optimiser(model, paper, 9))["head"] == 3_391_977


@pytest.mark.parametrize(
    ("size", "trunk", "lda", "total"),
    [
        ("tiny", 27_517_818, 196_320, 29_521_479),
        ("small", 48_835_722, 196_320, 50_839_383),
        ("base", 86_741_176, 252_128, 89_111_941),
    ],
)
def test_smarts_groups_have_the_published_sizes(size, trunk, lda, total):
    """Swin with LDA trains at 5e-7, everything else at ten times that, in AdamW."""
    config = changed(load_preset("smart_author"), {"model": f"smart_iqa_{size}"}, "here")
    optimiser = create_optimiser(on_meta(config), config)
    assert sizes(optimiser) == {"trunk": trunk + lda, "head": total - trunk - lda}
    assert type(optimiser) is torch.optim.AdamW
    assert [group["lr"] for group in optimiser.param_groups] == [5e-7, 5e-6]


def test_lda_may_train_at_the_heads_rate():
    """Without its prefix in the trunk's group LDA is part of the head."""
    config = changed(load_preset("hyperiqa_paper"), {"trunk_prefixes": ["trunk."]}, "here")
    assert sizes(create_optimiser(on_meta(config), config)) == {"trunk": 23_508_032, "head": 3_867_337}


def test_there_may_be_more_groups_the_longest_prefix_decides():
    """Further groups take their parameters from the others; each parameter is in one group."""
    settings = TrainConfig(
        name="x",
        model="timm_regressor",
        epochs=1,
        lr_groups={"head.": 1.0, "head.mlp.": 2.0, "trunk.net.bn1": 3.0},
    )  # fmt: skip
    model = create_model("timm_regressor", backbone="test_efficientnet")
    groups = parameter_groups(model, settings)
    assert list(groups) == ["trunk", "head.", "head.mlp.", "trunk.net.bn1"]
    assert {id(p) for p in groups["head.mlp."]} == {id(p) for p in model.head.mlp.parameters()}
    assert sum(map(len, groups.values())) == len(list(model.parameters()))
    assert set_rates(create_optimiser(model, settings), settings, 0, 10)["head.mlp."] == pytest.approx(2 / 25)


def test_a_prefix_that_fits_nothing_is_told():
    """A group without a parameter is a misspelling."""
    config = TrainConfig(name="x", model="linear", epochs=1, lr_groups={"trnk.": 1.0})
    with pytest.raises(TrainingError, match=r"no parameter of 'linear' begins with 'trnk.'"):
        parameter_groups(create_model("linear"), config)
