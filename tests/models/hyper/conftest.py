"""An evaluation of the head that shares no code with ours: grouped convolutions on the authors' names."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

HYPERIQA = (256, 512, 1024, 2048)
SWIN_T = (96, 192, 384, 768)
SWIN_B = (128, 256, 512, 1024)


def author_shapes(channels, hidden, fusion, attention_hidden=256, project=False):
    """Shapes of every tensor of a head, under the authors' names without the trunk's prefix."""
    c1, c2, c3, c4 = channels
    fused = {"last": c4, "afa": sum(channels), "attention": sum(channels)}[fusion]
    if project:
        fused = 2048
    shapes = {
        "lda1_pool.0.weight": (16, c1, 1, 1),
        "lda2_pool.0.weight": (32, c2, 1, 1),
        "lda3_pool.0.weight": (64, c3, 1, 1),
        "lda1_fc.weight": (16, 1024),
        "lda2_fc.weight": (16, 512),
        "lda3_fc.weight": (16, 256),
        "lda4_fc.weight": (176, c4),
        "conv1.0.weight": (hidden[0], fused, 1, 1),
        "conv1.2.weight": (hidden[1], hidden[0], 1, 1),
        "conv1.4.weight": (112, hidden[1], 1, 1),
        "fc1w_conv.weight": (512, 112, 3, 3),
        "fc2w_conv.weight": (128, 112, 3, 3),
        "fc3w_conv.weight": (32, 112, 3, 3),
        "fc4w_conv.weight": (8, 112, 3, 3),
        "fc5w_fc.weight": (14, 112),
        "fc1b_fc.weight": (112, 112),
        "fc2b_fc.weight": (56, 112),
        "fc3b_fc.weight": (28, 112),
        "fc4b_fc.weight": (14, 112),
        "fc5b_fc.weight": (1, 112),
    }
    if fusion == "attention":
        shapes["multiscale_attention.attention_net.0.weight"] = (attention_hidden, c4)
        shapes["multiscale_attention.attention_net.3.weight"] = (4, attention_hidden)
    if project:
        shapes |= {f"project{s}.weight": (512, c, 1, 1) for s, c in enumerate(channels, 1)}
    biases = {
        name.replace("weight", "bias"): shape[:1]
        for name, shape in shapes.items()
        if not name.endswith("_pool.0.weight")
    }
    return shapes | biases


def golden_tensor(shape):
    """sqrt(2 / fan_in) sin(1.3 j + 0.7) for a matrix or kernel, 0.05 cos(0.9 j) for a vector."""
    j = torch.arange(math.prod(shape), dtype=torch.float64).reshape(shape)
    if len(shape) == 1:
        return 0.05 * torch.cos(0.9 * j)
    return math.sqrt(2 / math.prod(shape[1:])) * torch.sin(1.3 * j + 0.7)


def golden_maps(channels):
    """Four stage maps of two images: 0.5 + 0.5 sin(0.05 k + s + b)."""
    maps = []
    for s, (c, side) in enumerate(zip(channels, (56, 28, 14, 7), strict=True), 1):
        k = torch.arange(c * side * side, dtype=torch.float64).reshape(c, side, side)
        maps.append(torch.stack([0.5 + 0.5 * torch.sin(0.05 * k + s + b) for b in (0, 1)]))
    return maps


def evaluate(p, maps, fusion, activation="softmax"):
    """Score stage maps (B, C, H, W) with tensors `p` under the authors' names: a dict of every value."""
    n = len(maps[0])
    parts = []
    for s in (1, 2, 3):
        x = F.conv2d(maps[s - 1], p[f"lda{s}_pool.0.weight"])
        x = F.avg_pool2d(x, 7, stride=7).reshape(n, -1)
        parts.append(x @ p[f"lda{s}_fc.weight"].T + p[f"lda{s}_fc.bias"])
    x = F.avg_pool2d(maps[3], 7).reshape(n, -1)
    parts.append(x @ p["lda4_fc.weight"].T + p["lda4_fc.bias"])
    vector = torch.cat(parts, 1)

    attention = None
    x = maps[3]
    if fusion != "last":
        pooled = [F.avg_pool2d(m, m.shape[-1] // 7) for m in maps]
        if "project1.weight" in p:
            pooled = [
                torch.relu(F.conv2d(m, p[f"project{s}.weight"], p[f"project{s}.bias"]))
                for s, m in enumerate(pooled, 1)
            ]
        if fusion == "attention":
            net = "multiscale_attention.attention_net"
            y = maps[3].flatten(2).mean(2)
            y = torch.relu(y @ p[f"{net}.0.weight"].T + p[f"{net}.0.bias"])
            y = y @ p[f"{net}.3.weight"].T + p[f"{net}.3.bias"]
            attention = torch.softmax(y, 1) if activation == "softmax" else torch.sigmoid(y)
            pooled = [m * attention[:, s].reshape(n, 1, 1, 1) for s, m in enumerate(pooled)]
        x = torch.cat(pooled, 1)
    for layer in (0, 2, 4):
        x = torch.relu(F.conv2d(x, p[f"conv1.{layer}.weight"], p[f"conv1.{layer}.bias"]))
    mean = F.avg_pool2d(x, 7).reshape(n, 112)

    weights, biases = [], []
    for layer, (out, given) in enumerate(((112, 224), (56, 112), (28, 56), (14, 28)), 1):
        w = F.conv2d(x, p[f"fc{layer}w_conv.weight"], p[f"fc{layer}w_conv.bias"], padding=1)
        weights.append(w.reshape(n, out, given))
    weights.append((mean @ p["fc5w_fc.weight"].T + p["fc5w_fc.bias"]).reshape(n, 1, 14))
    biases = [mean @ p[f"fc{k}b_fc.weight"].T + p[f"fc{k}b_fc.bias"] for k in (1, 2, 3, 4, 5)]
    return {
        "score": grouped(vector, weights, biases),
        "lda": vector,
        "attention": attention,
        "weights": weights,
        "biases": biases,
        "hyper": x,
    }


def grouped(vector, weights, biases):
    """The target network as one convolution with a group an image, as the authors run it."""
    n = len(vector)
    x = vector.reshape(1, -1, 1, 1)
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
        kernel = w.reshape(n * w.shape[1], w.shape[2], 1, 1)
        x = F.conv2d(x, kernel, b.reshape(-1), groups=n)
        if layer < 4:
            x = torch.sigmoid(x)
    return x.reshape(n)


@pytest.fixture(scope="session")
def reference():
    """The independent evaluation and the golden values' formulas."""
    return SimpleNamespace(
        HYPERIQA=HYPERIQA,
        SWIN_T=SWIN_T,
        SWIN_B=SWIN_B,
        author_shapes=author_shapes,
        golden_tensor=golden_tensor,
        golden_maps=golden_maps,
        evaluate=evaluate,
        grouped=grouped,
    )
