"""Feature trunks: a pyramid from timm, with the weights that were asked for or an error that helps."""

import os
import pickle
import re
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from iqa_models import BadCheckpoint, BadModelOption, MissingWeights
from iqa_models import trunks as module
from iqa_models.trunks import create_trunk, full_tag, load_trunk_weights, read_state_dict, seeded

TAG = "resnet10t.c3_in1k"
REPOSITORY = "models--timm--resnet10t.c3_in1k"


class Payload:
    """Leaves a trace if it is ever unpickled by code."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        """Run a command when unpickled."""
        return os.system, (f"touch {self.trace}",)


def point_at(monkeypatch, address):
    """Make an address the hub's."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches, and a hub whose address refuses connections."""
    hub, torch_home = tmp_path / "hub", tmp_path / "torch"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    point_at(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(torch_home))
    return hub, torch_home / "checkpoints"


@pytest.fixture(scope="module")
def whole():
    """State of the whole ResNet-10-T, classifier included, unlike any fresh one."""
    with seeded(123):
        return timm.create_model("resnet10t").state_dict()


def same_trunk(trunk, state):
    """Whether every weight of a trunk is that of a state dict."""
    return all(torch.equal(value, state[name]) for name, value in trunk.net.state_dict().items())


@pytest.mark.parametrize("name", ["resnet10t", "swin_tiny_patch4_window7_224", "pvt_v2_b0", "convnext_atto"])
def test_a_trunk_is_a_pyramid_of_four_strides(name):
    """Four NCHW maps of strides 4, 8, 16 and 32 with the channels it names."""
    with torch.device("meta"):
        trunk, _ = create_trunk(name)
        maps = trunk(torch.zeros(2, 3, 224, 224))
    assert trunk.strides == (4, 8, 16, 32)
    assert [tuple(stage.shape) for stage in maps] == [
        (2, channels, 224 // stride, 224 // stride)
        for channels, stride in zip(trunk.channels, trunk.strides, strict=True)
    ]


def test_a_tag_is_spelled_out():
    """A name without a tag gets timm's default tag, so that a card is never ambiguous."""
    assert full_tag("resnet50.tv_in1k") == "resnet50.tv_in1k"
    assert full_tag("swin_tiny_patch4_window7_224") == "swin_tiny_patch4_window7_224.ms_in1k"
    assert create_trunk("resnet10t")[0].tag == TAG


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet10", "did you mean 'resnet10t'?"),
        ("hf-hub:someone/something", "timm has no backbone"),
        ("resnet10t.in99k", "it has: resnet10t.c3_in1k"),
        ("vit_tiny_patch16_224", "no pyramid of strides [4, 8, 16, 32]"),
    ],
)
def test_a_backbone_that_makes_no_pyramid_is_refused(name, words):
    """An unknown name, an unknown tag and a flat transformer each raise BadModelOption that says so."""
    with pytest.raises(BadModelOption, match=re.escape(words)):
        create_trunk(name)


def test_an_unreachable_hub_is_one_clear_error(caches):
    """Neither cached nor reachable: the error names tag, folders and the way out, at once."""
    hub, torch_cache = caches
    start = time.monotonic()
    with pytest.raises(MissingWeights) as caught:
        create_trunk(TAG, "hub")
    assert time.monotonic() - start < 10
    for words in (TAG, str(hub), str(torch_cache), "--backbone-weights FILE"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_hubs_offline_switch_is_the_same_error(caches, monkeypatch):
    """With the hub's client switched offline nothing is asked and the error is the same."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MissingWeights, match="OfflineModeIsEnabled"):
        create_trunk(TAG, "hub")


def test_a_silent_hub_is_given_up_soon(caches, monkeypatch):
    """A hub that accepts connections and never answers is asked once, for the probe's time."""
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        point_at(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(MissingWeights, match="Timeout"):
            create_trunk(TAG, "hub")
        assert time.monotonic() - start < 10


@contextmanager
def local_hub(content):
    """A hub on this machine that has one file."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            found = (
                self.path.endswith("/resolve/main/model.safetensors") or "/resolve/" + "0" * 40 in self.path
            )
            self.send_response(200 if found else 404)
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", '"abc"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(content)

        def log_message(self, *_):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            huggingface_hub.close_session()


def test_a_reachable_hub_is_asked_once_and_cached(caches, whole, tmp_path, monkeypatch):
    """The hub's weights are loaded, and a second trunk needs the hub no more."""
    save_file(whole, tmp_path / "file")
    with local_hub((tmp_path / "file").read_bytes()) as address:
        point_at(monkeypatch, address)
        assert same_trunk(create_trunk(TAG, "hub")[0], whole)
    point_at(monkeypatch, "http://127.0.0.1:9")
    assert same_trunk(create_trunk(TAG, "hub")[0], whole)


def test_the_hubs_cache_is_used_before_the_hub(caches, whole):
    """Weights in the hub's cache folder are loaded without a connection."""
    hub, _ = caches
    snapshot = hub / REPOSITORY / "snapshots" / ("1" * 40)
    snapshot.mkdir(parents=True)
    (hub / REPOSITORY / "refs").mkdir()
    (hub / REPOSITORY / "refs" / "main").write_text("1" * 40)
    save_file(whole, snapshot / "model.safetensors")
    assert same_trunk(create_trunk(TAG, "hub")[0], whole)


def test_torchs_cache_is_used_and_its_hash_checked(caches, whole):
    """A file in torch's cache is loaded; one whose name tells another hash is refused as damaged."""
    _, cache = caches
    cache.mkdir(parents=True)
    torch.save({"model": {}}, cache / "swin_tiny_patch4_window7_224.pth")
    with pytest.raises(BadCheckpoint, match=re.escape("not the weights of swin_tiny_patch4_window7_224")):
        create_trunk("swin_tiny_patch4_window7_224.ms_in1k", "hub")
    torch.save(whole, cache / timm.get_pretrained_cfg(TAG).url.rsplit("/", 1)[1])
    with pytest.raises(BadCheckpoint, match="damaged"):
        create_trunk(TAG, "hub")


@pytest.mark.parametrize("form", ["safetensors", "pth", "wrapped", "module", "old"])
def test_backbone_weights_come_from_a_file(form, whole, tmp_path):
    """Safetensors and torch files, wrapped, prefixed or of old torch, all give the file's weights."""
    state = dict(whole)
    if form == "module":
        state = {f"module.{name}": value for name, value in state.items()}
    if form == "old":
        state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if form == "wrapped" else state, path)
    assert same_trunk(create_trunk(TAG, backbone_weights=path)[0], whole)


def test_swins_own_layout_is_timms_one_stage_later():
    """Files of Swin's authors, which merge patches a stage earlier, give the same trunk as timm's layout."""
    swin = timm.create_model("swin_tiny_patch4_window7_224").state_dict()
    authors = {}
    for name, value in swin.items():
        stage = re.match(r"layers\.(\d)\.downsample(.*)", name)
        authors[f"layers.{int(stage[1]) - 1}.downsample{stage[2]}" if stage else name] = value
    authors["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    authors["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
    trunk, _ = create_trunk("swin_tiny_patch4_window7_224")
    load_trunk_weights(trunk, swin, "timm")
    before = {name: value.clone() for name, value in trunk.net.state_dict().items()}
    merged = "layers_1.downsample.reduction.weight"
    assert torch.equal(before[merged], swin["layers.1.downsample.reduction.weight"])
    for parameter in trunk.parameters():
        torch.nn.init.zeros_(parameter)
    load_trunk_weights(trunk, {"model": authors}, "authors")
    assert all(torch.equal(value, before[name]) for name, value in trunk.net.state_dict().items())


def test_weights_of_another_backbone_are_refused_and_listed(whole):
    """Missing layers, other shapes and surplus blocks of a deeper backbone are each named."""
    trunk, _ = create_trunk(TAG)
    short = {name: value for name, value in whole.items() if not name.startswith("layer4.0.conv1")}
    with pytest.raises(BadCheckpoint, match=r"here: not the weights of resnet10t.c3_in1k: 1 missing: layer4"):
        load_trunk_weights(trunk, short, "here")
    wide = {**whole, "layer1.0.conv1.weight": torch.zeros(3, 3)}
    with pytest.raises(BadCheckpoint, match=r"1 of another shape: layer1.0.conv1.weight is \[3, 3\], not"):
        load_trunk_weights(trunk, wide, "here")
    with torch.device("meta"):
        small, deep = create_trunk("resnet18")[0], timm.create_model("resnet34").state_dict()
    with pytest.raises(BadCheckpoint, match=r"of a deeper backbone: layer1_2_bn1_bias, .* and 88 more"):
        load_trunk_weights(small, deep, "here")
    with pytest.raises(MissingWeights, match="no file of backbone weights nowhere"):
        create_trunk(TAG, backbone_weights="nowhere")


@pytest.mark.parametrize("writer", ["torch", "torch_legacy", "pickle"])
def test_a_file_that_needs_code_is_refused_and_nothing_runs(writer, tmp_path):
    """A pickle with a command in it raises BadCheckpoint that names the call, and leaves no trace."""
    path, trace = tmp_path / "weights.pkl", tmp_path / "trace"
    content = {"conv1.weight": Payload(trace)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    with pytest.raises(BadCheckpoint, match=r"refused, .*nothing of it was run") as caught:
        read_state_dict(path)
    assert "system" in str(caught.value) or writer == "pickle"
    assert "\n" not in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["empty.pth", "text.pth", "text.safetensors", "cut.pth", "list.pth"])
def test_a_damaged_file_is_refused(name, tmp_path):
    """Empty, foreign and truncated files, and one that holds no dict, raise BadCheckpoint."""
    path = tmp_path / name
    if name == "list.pth":
        torch.save([torch.zeros(2)], path)
    elif name == "cut.pth":
        torch.save({"a": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[:-500])
    else:
        path.write_bytes(b"" if name.startswith("empty") else b"no weights at all, just words")
    with pytest.raises(BadCheckpoint, match=re.escape(str(path))):
        read_state_dict(path)
    with pytest.raises(BadCheckpoint, match="no such file"):
        read_state_dict(tmp_path / "nothing.pth")
