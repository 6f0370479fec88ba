"""`profile` in Python: the counts of the command."""

import pandas as pd
import pytest
import torch

import iqa_harness as iqa
from iqa_harness.api.profile import profile
from iqa_harness.errors import RunError
from iqa_models import create_model


def test_the_command_and_the_function_count_the_same(cli, own):
    """Equal files where nothing is measured, and the table holds them."""
    line = ("profile", "demo_resnet10t", "--size", "64", "--repeats", "0", "--out", "a.parquet")
    assert cli(*line)[0] == 0
    found = profile("demo_resnet10t", size=64, repeats=0, out="b.parquet")
    assert pd.read_parquet("a.parquet").equals(pd.read_parquet("b.parquet"))
    assert found.table.equals(pd.read_parquet("b.parquet"))
    assert found.measured == {}
    whole = found.parts[-1].parameters
    assert whole == sum(p.numel() for p in create_model("demo_resnet10t").parameters())
    assert "<table" in found._repr_html_()


def test_a_model_is_left_as_it_was():
    """Measured training steps change no weight."""
    model = create_model("demo_resnet10t")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = profile(model, size=32, batch=2, repeats=1)
    assert set(found.measured) == {"forward", "training step"}
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_model_without_weights_is_not_trained():
    """A function has a forward pass and nothing to learn."""
    found = profile(
        iqa.wrap(lambda images: images.mean((1, 2, 3)), score_range=(0, 1), name="mean"), size=32, repeats=1
    )
    assert set(found.measured) == {"forward"}


def test_growth_needs_a_neck():
    """Refused by the option's name."""
    with pytest.raises(RunError, match="--growth"):
        profile("linear", growth=True)
