"""Foreign checkpoints: each layout loads strictly and scores as an independent evaluation of its tensors."""

import os
import re
import tempfile
from pathlib import Path

import pytest
import timm
import torch

from iqa_models import BadCheckpoint, create_model
from iqa_models.hyper import import_checkpoint
from iqa_models.hyper.convert import identify, layout_of, translate, unwrap

SWIN = {
    "smart_iqa_tiny": ("swin_tiny_patch4_window7_224", "SWIN_T"),
    "smart_iqa_small": ("swin_small_patch4_window7_224", "SWIN_T"),
    "smart_iqa_base": ("swin_base_patch4_window7_224", "SWIN_B"),
}


class Payload:
    """Leaves a trace if it is ever unpickled by code."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        """Run a command when unpickled."""
        return os.system, (f"touch {self.trace}",)


@pytest.fixture
def folder():
    """A folder that is gone after the test: these files are large."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def random_head(reference, trunk, hidden, fusion, **options):
    """A head's tensors under the authors' names, small enough for tame scores."""
    generator = torch.Generator().manual_seed(5)
    shapes = reference.author_shapes(getattr(reference, trunk), hidden, fusion, **options)
    return {
        name: torch.randn(shape, generator=generator) * (shape[-1] if len(shape) == 2 else 100) ** -0.5 * 0.5
        for name, shape in shapes.items()
    }


def author_names(head, trunk_state, prefix, backbone):
    """The authors' whole state dict: LDA and trunk under a prefix, the rest bare."""
    names = {(f"{prefix}.{name}" if name.startswith("lda") else name): value for name, value in head.items()}
    return {f"{prefix}.{backbone}{name}": value for name, value in trunk_state.items()} | names


def pyiqa_names(head, trunk_state):
    """Pyiqa's whole state dict of the same tensors."""
    names = {f"base_model.{name}": value for name, value in trunk_state.items()}
    for name, value in head.items():
        kind = name.rsplit(".", 1)[1]
        if name.startswith("conv1."):
            names[name] = value
        elif name.startswith("lda4"):
            names[f"lda_modules.3.2.{kind}"] = value
        elif name.startswith("lda"):
            names[f"lda_modules.{int(name[3]) - 1}.{3 if '_fc' in name else 0}.{kind}"] = value
        elif name == f"fc5w_fc.{kind}":
            names[f"fc_w_modules.4.2.{kind}"] = value
        elif "w_conv" in name:
            names[f"fc_w_modules.{int(name[2]) - 1}.{kind}"] = value
        else:
            names[f"fc_b_modules.{int(name[2]) - 1}.2.{kind}"] = value
    return names


def normalised(images):
    """ImageNet mean and std, written out."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return (images - mean) / std


@pytest.fixture(scope="module")
def hyperiqa(reference):
    """Tensors of a HyperIQA, an image, and its score by timm's trunk and the independent head."""
    torch.manual_seed(11)
    net = timm.create_model("resnet50", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            module.num_batches_tracked.fill_(9)
    head = random_head(reference, "HYPERIQA", (1024, 512), "last")
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        score = reference.evaluate(head, net(normalised(image)), "last")["score"]
    return head, net.state_dict(), image, score


def write(state, path):
    """Save as torch does, and return the path."""
    torch.save(state, path)
    return path


@pytest.mark.parametrize("form", ["plain", "module", "old", "pyiqa"])
def test_hyperiqa_scores_as_its_tensors_say(hyperiqa, form, folder):
    """The authors' file, also prefixed or of old torch, and pyiqa's all give the independent score."""
    head, trunk, image, score = hyperiqa
    state = author_names(head, trunk, "res", "")
    if form == "module":
        state = {f"module.{name}": value for name, value in state.items()}
    if form == "old":
        state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
        assert len(state) == 302
    if form == "pyiqa":
        state = {"params": pyiqa_names(head, trunk)}
    path = write(state, folder / "koniq_pretrained.pkl")
    model, report = import_checkpoint(path, protocol="native", resize="none")
    with torch.no_grad():
        torch.testing.assert_close(model(image), score, rtol=1e-5, atol=1e-5)
    assert not model.training
    assert report.model == model.spec.name == "hyperiqa"
    assert report.layout == ("pyiqa" if form == "pyiqa" else "HyperIQA author")
    assert report.converted == (302 if form == "old" else 355)
    assert len(report.filled) == (53 if form == "old" else 0)
    assert model.spec.initial_weights == "file:koniq_pretrained.pkl"
    assert model.spec.score_range == ((0.0, 1.0) if form == "pyiqa" else (0.0, 100.0))


def test_each_layouts_own_protocol_is_the_default(hyperiqa, folder):
    """Pyiqa's models score a uniform grid of 25 crops without resizing; the authors', 25 random crops."""
    head, trunk, _, _ = hyperiqa
    model, report = import_checkpoint(write({"params": pyiqa_names(head, trunk)}, folder / "a.pth"))
    assert model.spec.input_protocol == "mean of 224x224 crops on a 5x5 grid, no resizing"
    assert report.options["protocol"] == "grid:5x5"


@pytest.mark.parametrize("fusion", ["last", "afa", "attention"])
def test_smart_scores_as_its_tensors_say(reference, fusion, folder):
    """The author's file of each ablation row is recognised and gives the independent score."""
    torch.manual_seed(12)
    net = timm.create_model(SWIN["smart_iqa_tiny"][0], features_only=True).eval()
    head = random_head(reference, "SWIN_T", (512, 256), fusion, attention_hidden=128)
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        maps = [stage.permute(0, 3, 1, 2) for stage in net(normalised(image))]
        score = reference.evaluate(head, maps, fusion)["score"]
    state = author_names(head, net.state_dict(), "swin", "backbone.")
    assert len(state) == (210 if fusion == "attention" else 206)
    model, report = import_checkpoint(write(state, folder / "best.pkl"), protocol="native")
    with torch.no_grad():
        torch.testing.assert_close(model(image), score, rtol=1e-5, atol=1e-5)
    assert report.model == "smart_iqa_tiny"
    assert report.options["fusion"] == model.spec.options["fusion"] == fusion
    if fusion == "attention":
        assert model.spec.options["attention_hidden"] == 128


@pytest.mark.parametrize("name", SWIN)
@pytest.mark.parametrize("fusion", ["last", "afa", "attention"])
def test_every_smart_variant_is_recognised_and_fits_to_the_name(reference, name, fusion):
    """Size and fusion are read off names and shapes, and each tensor has its place and shape in our model."""
    backbone, trunk = SWIN[name]
    with torch.device("meta"):
        net = timm.create_model(backbone, features_only=True)
        ours = create_model(name, fusion=fusion).state_dict()
        head = {
            key: torch.empty(shape)
            for key, shape in reference.author_shapes(getattr(reference, trunk), (512, 256), fusion).items()
        }
    state = author_names(head, net.state_dict(), "swin", "backbone.")
    assert layout_of(state) == "SMART-IQA author"
    found, options = identify("SMART-IQA author", state, Path("file"))
    assert (found, options["fusion"]) == (name, fusion)
    translated, unknown = translate("SMART-IQA author", state)
    assert unknown == []
    assert {key: tuple(value.shape) for key, value in translated.items()} == {
        key: tuple(value.shape) for key, value in ours.items()
    }


def test_what_does_not_fit_is_listed(hyperiqa, folder):
    """Missing, unexpected and misshapen tensors are each named, and whose file it looks like."""
    head, trunk, _, _ = hyperiqa
    state = author_names(head, trunk, "res", "")
    state["extra.weight"] = torch.zeros(2)
    state["fc5w_fc.bias"] = torch.zeros(15)
    del state["conv1.4.bias"]
    with pytest.raises(BadCheckpoint) as caught:
        import_checkpoint(write(state, folder / "some.pkl"))
    for words in (
        "looks like HyperIQA author's hyperiqa",
        "1 missing: head.hyper.squeeze.4.bias",
        "1 unexpected: extra.weight",
        "head.hyper.weights.4.bias is [15], not [14]",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"layer1.0.conv1.weight": 0, "fc.weight": 0}, "a bare ResNet trunk (give it as backbone_weights)"),
        ({"patch_embed.proj.weight": 0}, "a bare Swin trunk (give it as backbone_weights)"),
        ({"head.lda.reduce.0.weight": 0, "trunk.net.x": 0}, "our own weights"),
        ({"model.layer.weight": 0}, "no model known here"),
        ({"swin.lda4_fc.weight": 0, "swin.backbone.layers_2.blocks.0.x": 0}, "no size has 2 channels"),
        ({"swin.backbone.layers_2.blocks.0.x": 0}, "swin.lda4_fc.weight is missing"),
        ({}, "0 tensors"),
    ],
)
def test_a_file_of_another_family_is_named(state, words, folder):
    """A trunk alone, our own weights and strangers each raise BadCheckpoint that says what they look like."""
    path = write({name: torch.zeros(2, 2) for name in state}, folder / "file.pth")
    with pytest.raises(BadCheckpoint, match=re.escape(words)):
        import_checkpoint(path)


def test_a_pickled_object_is_refused_and_nothing_runs(folder):
    """A state dict with a command in it is refused before anything is run."""
    trace = folder / "trace"
    path = write({"res.lda4_fc.weight": torch.zeros(1), "x": Payload(trace)}, folder / "bad.pkl")
    with pytest.raises(BadCheckpoint, match=r"pickled code \(.*system\) and nothing of it was run"):
        import_checkpoint(path)
    assert not trace.exists()


def test_wrappers_and_prefixes_are_taken_off():
    """Params and state_dict are opened, module. is cut, and what is no tensor is left out."""
    tensor = torch.zeros(1)
    assert unwrap({"params": {"module.a": tensor, "module.b": tensor}}) == {"a": tensor, "b": tensor}
    assert unwrap({"state_dict": {"a": tensor}, "epoch": 3}) == {"a": tensor}
    assert unwrap({"module.a": tensor, "b": tensor, "best": 0.9}) == {"module.a": tensor, "b": tensor}
