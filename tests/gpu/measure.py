"""Measures the harness on a GPU: what the card gives, what gradients take of it, what a paper's run costs.

Run by `tests/gpu/run.sh`, or by hand:
``python tests/gpu/measure.py --out FOLDER [--device cuda] [--part NAME]``.
Writes FOLDER/gpu.json and FOLDER/gpu.md. Weights are random but for demo_lite0's trunk, settled and damped so
that slopes are not noise (`bench_suite_vs_loops.settle`): times do not depend on them; what a lower precision
costs in strength does, so the choices are of these weights alone.
"""

# ruff: noqa: T201 - a script that prints what it does

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import iqa_harness as iqa
from iqa_attacks import AttackResult, ThreatModel, create_attack
from iqa_harness.machine.devices import device_name, same_kernels
from iqa_harness.machine.tuning import Tuning, tune
from iqa_models import QualityModel, create_model, weights_sha256
from iqa_models.frozen import frozen

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
from bench_suite_vs_loops import settle  # noqa: E402 - a script beside this one

NATIVE = {"pretrained": "none", "protocol": "native"}
MODELS: dict[str, dict[str, Any]] = {
    "hyperiqa": NATIVE,
    "demo_lite0": {},
    "smart_iqa_base": NATIVE,
    "srm_swin_tiny": NATIVE,
}
"""What is timed, each on one whole 224x224 image a gradient."""
SIDE, CHUNKS, MOST = 224, (8, 32, 128), 256
CELL = 32
"""Images attacked together: those of a cell of the ensemble."""
COMPILED = ("hyperiqa",)
"""Models whose bare loop is compiled to compare with: up to a minute each."""
OBJECTIVES = ("mse", "drift", "pairwise_inversion")
STEPS, RESTARTS = 40, 5
KONIQ = (2015, 384, 512)
"""Test images of KonIQ-10k, and the height and width its papers use."""
TRIED = 96
"""Images of that size that are attacked, one centre crop each."""

ENSEMBLE = """
name = "ensemble"
summary = "the SRM paper's white-box ensemble at one radius"
seed = 0
main_epsilon = "4/255"
suite_min = ["pgd/mse", "pgd/drift", "pgd/pairwise_inversion"]
step_sweep = "pgd"
cell_images = 32

[data]
name = "demo"

[[attacks]]
name = "pgd"
kind = "pgd"
epsilons = ["4/255"]
objectives = ["mse", "drift", "pairwise_inversion"]
steps = 40
report_steps = [1, 5, 10, 20]
step_size = "1/255"
restarts = 5
"""

Lines = list[str]


def smooth(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Return smooth 8-bit noise (count, 3, height, width) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, max(2, height // 14), max(2, width // 14), generator=generator)
    wide = nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    return wide.mul(255).round().div(255)


def made(name: str, options: dict[str, Any], device: str) -> QualityModel:
    """Return a model for input gradients on the device."""
    model = create_model(name, **options).eval()
    settle(model, SIDE)
    return model.requires_grad_(False).to(device)


def seconds(work: Callable[[], object], device: str, repeats: int = 3) -> float:
    """Return the least seconds of some calls, the first left out."""

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    work()
    wait()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        wait()
        taken.append(time.perf_counter() - began)
    return min(taken)


def input_gradient(model: QualityModel, images: Tensor) -> Tensor:
    """Return one input gradient a stack, as a bare loop takes it."""
    leaf = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.predict(leaf).sum(), leaf)
    return gradient


def operations(model: QualityModel) -> float:
    """Return the floating-point operations of one input gradient of a 224x224 image."""
    from torch.utils.flop_counter import FlopCounterMode

    leaf = smooth(1, SIDE, SIDE).to(next(model.buffers()).device).requires_grad_()
    with FlopCounterMode(display=False) as counter:
        model.predict(leaf).sum().backward()
    return float(counter.get_total_flops())


def ceilings(device: str) -> tuple[dict[str, float], Lines]:
    """Measure a large matrix product and a large copy: what the card gives at best."""
    side = 8192 if device.startswith("cuda") else 512
    found = {}
    for name, kind in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
        found[f"{name}_tflops"] = 2 * side**3 / seconds(lambda a=left, b=right: a @ b, device) / 1e12
    block = torch.randn(side * side, device=device)
    found["copy_tb_s"] = 2 * block.numel() * 4 / seconds(block.clone, device) / 1e12
    return found, [
        f"A {side}x{side} matrix product: {found['bfloat16_tflops']:.0f} TFLOP/s in bfloat16, "
        f"{found['float32_tflops']:.0f} in float32; a copy moves {found['copy_tb_s']:.2f} TB/s. Shares of "
        "the peak below are of that bfloat16 product."
    ]


def gradients(device: str, peak: float) -> tuple[list[dict[str, Any]], Lines]:
    """Tune every model, and set the attack beside the bare loops it could be at best."""
    rows, lines = [], [
        "| model | GFLOP | plain ms | chosen ms | strength | chosen | bare compiled ms | attack ms | "
        "of the bare loop | of the peak, chosen | of the peak, attack |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, options in MODELS.items():
        model = made(name, options, device)
        flops = operations(model)
        images = list(smooth(CELL, SIDE, SIDE).to(device))
        with same_kernels(device):  # as in a run
            began = time.perf_counter()
            choice = tune(model, weights_sha256(model), images, chunk=MOST, mode="fast", gradients=1e9)
            tuning = time.perf_counter() - began
            attack_ms = _attack_ms(model, choice, images, device)
        bare_ms = _bare_ms(model, choice, device) if name in COMPILED else None
        row = {
            "model": name,
            "gflop": flops / 1e9,
            "plain_ms": choice.plain_ms,
            "tuned_ms": choice.tuned_ms,
            "strength": choice.strength,
            "why": choice.why,
            "chunk": choice.chunk,
            "tuning_seconds": tuning,
            "bare_ms": bare_ms,
            "attack_ms": attack_ms,
            "tflops": flops / attack_ms / 1e9,
        }
        rows.append(row)
        lines.append(
            f"| {name} | {row['gflop']:.1f} | {_number(choice.plain_ms)} | {_number(choice.tuned_ms)} | "
            f"{_number(choice.strength)} | {choice.form.words}, {choice.chunk} images | {_number(bare_ms)} | "
            f"{attack_ms:.3f} | {'' if bare_ms is None else format(bare_ms / attack_ms, '.0%')} | "
            f"{'' if choice.tuned_ms is None else format(flops / choice.tuned_ms / 1e9 / peak, '.1%')} | "
            f"{row['tflops'] / peak:.1%} |"
        )
        print(lines[-1], flush=True)
        print(f"  {name}: tuned in {tuning:.1f} s: {choice.why}", flush=True)
    lines.append("")
    lines += [f"- {row['model']}, tuned in {row['tuning_seconds']:.0f} s: {row['why']}" for row in rows]
    return rows, lines


def _attack_ms(model: QualityModel, choice: Tuning, images: list[Tensor], device: str) -> float:
    """Return the milliseconds a counted gradient of the paper's ensemble takes, everything in it included."""
    attack = create_attack(
        "pgd", threat=ThreatModel("inf", 4 / 255), objectives=OBJECTIVES, steps=STEPS,
        step_size=1 / 255, report_steps=tuple(s for s in (1, 5, 10, 20) if s < STEPS), restarts=RESTARTS,
    )  # fmt: skip
    copy = choice.copy_of(model)
    ids, mos = [str(i) for i in range(len(images))], torch.linspace(0, 1, len(images))

    def run() -> AttackResult:
        return attack.run(model, images, ids, mos, chunk=choice.chunk, gradients=copy)

    run()  # kernels are chosen and passes recorded in the first
    began = time.perf_counter()
    cost = run().cost
    return 1e3 * (time.perf_counter() - began) / sum(cost[i, STEPS].backwards for i in range(len(images)))


def _bare_ms(model: QualityModel, choice: Tuning, device: str) -> float:
    """Return the milliseconds of a gradient in a bare loop of the same form, compiled (on a CPU as it is)."""
    form = choice.form._asdict() | {"compiled": device.startswith("cuda")}
    bare = frozen(model, **{name: value for name, value in form.items() if name != "graphed"})
    stack = smooth(min(choice.chunk, 128), SIDE, SIDE).to(device)
    return 1e3 * seconds(lambda: input_gradient(bare, stack), device) / len(stack)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def memory(device: str) -> tuple[list[dict[str, Any]], Lines]:
    """Measure the peak memory of an input gradient at several chunks."""
    if not device.startswith("cuda"):
        return [], ["Not measured on a CPU."]
    rows, lines = [], ["| model | " + " | ".join(f"{chunk} images, GiB" for chunk in CHUNKS) + " |"]
    lines.append("|---" * (len(CHUNKS) + 1) + "|")
    for name, options in MODELS.items():
        model, found = made(name, options, device), []
        for chunk in CHUNKS:
            stack = smooth(chunk, SIDE, SIDE).to(device)
            torch.cuda.reset_peak_memory_stats()
            input_gradient(model, stack)
            found.append(torch.cuda.max_memory_allocated() / 2**30)
        rows.append({"model": name, "gib": dict(zip(map(str, CHUNKS), found, strict=True))})
        lines.append(f"| {name} | " + " | ".join(f"{each:.2f}" for each in found) + " |")
    return rows, lines


def loops(device: str) -> tuple[dict[str, Any], Lines]:
    """Run `bench_suite_vs_loops` on every model."""
    found, lines = {}, [
        "| model | loops / suite | gradients: loops | suite | ms a gradient: loops | suite | SROCC of the "
        "minimum: loops | suite |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, options in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "figures.json"
            command = [
                sys.executable, str(BENCHMARKS / "bench_suite_vs_loops.py"), "--model", name,
                "--device", device,
                "--options", json.dumps(options), "--images", "16", "--restarts", "2", "--chunk", str(MOST),
                "--json", str(file),
            ]  # fmt: skip
            ended = subprocess.run(command, check=False, timeout=240)
            if not file.is_file():
                raise RuntimeError(f"bench_suite_vs_loops on {name} ended with {ended.returncode}")
            figures = found[name] = json.loads(file.read_text())
        lines.append(
            f"| {name} | {figures['median']:.1f} | {figures['gradients']['loops']} | "
            f"{figures['gradients']['suite']} | {figures['loops_ms']:.2f} | {figures['suite_ms']:.2f} | "
            f"{figures['SROCC']['loops']:.3f} | {figures['SROCC']['suite']:.3f} |"
        )
        print(lines[-1], flush=True)
    return found, lines


def koniq(device: str) -> tuple[dict[str, Any], Lines]:
    """Run the ensemble through the whole harness on images of KonIQ's size, and scale to its test set."""
    count, height, width = KONIQ
    pixels = (smooth(TRIED, height, width).permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    few = iqa.ArrayImageSet.of(list(pixels), np.linspace(0, 1, TRIED).tolist(), mos_range=(0, 1))
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder) / "ensemble.toml"
        suite.write_text(ENSEMBLE)
        model = made("hyperiqa", {"pretrained": "none", "protocol": "centre"}, device)
        began = time.perf_counter()
        run = iqa.attack(
            str(suite), {"hyperiqa": model}, data=few, device=device, store=folder, progress=False
        )
        whole = time.perf_counter() - began
        cells = [row for row in run.rows().to_dict("records") if row["kind"] == "pgd" and row["final"]]
    by_cell: dict[str, float] = {row["cell"]: row["seconds"] for row in cells}
    each = statistics.median(by_cell.values())
    taken = {row["image_id"]: row["backwards"] for row in cells}
    found = {"images": TRIED, "seconds_an_image": each, "whole_run": whole,
             "gradients_an_image": sum(taken.values()) / len(taken)}  # fmt: skip
    return found, [
        f"{each:.3f} s an image for {found['gradients_an_image']:.0f} gradients in attack cells "
        f"({', '.join(f'{value:.3f}' for value in by_cell.values())}, the median taken; {TRIED} images "
        f"{width}x{height}; the run with its checks, scores and tables {whole:.0f} s), so "
        f"{count * each / 60:.1f} minutes for {count} images at one radius. {_chosen(run)}"
    ]


def _chosen(run: iqa.Run) -> str:
    choices = run.manifest.tuning.get("choices", [])
    return "; ".join(choice["why"] for choice in choices)


def profile(device: str) -> tuple[str, Lines]:
    """Profile an attack on hyperiqa by kernel."""
    if not device.startswith("cuda"):
        return "", ["Not measured on a CPU."]
    model = made("hyperiqa", MODELS["hyperiqa"], device)
    copy = frozen(model, precision="float16")
    stack = smooth(128, SIDE, SIDE).to(device)
    input_gradient(copy, stack)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as watched:
        for _ in range(3):
            input_gradient(copy, stack)
        torch.cuda.synchronize()
    kernels = [(event.key, event.self_device_time_total) for event in watched.key_averages()]
    total = sum(spent for _, spent in kernels)
    groups: dict[str, float] = {}
    for name, spent in kernels:
        groups[_group(name)] = groups.get(_group(name), 0.0) + spent / total
    lines = ["| kernels of a float16 gradient of hyperiqa | share of the time |", "|---|---|"]
    lines += [f"| {name} | {share:.0%} |" for name, share in sorted(groups.items(), key=lambda g: -g[1])]
    table = "\n".join(
        f"{spent / total:6.1%} {name}" for name, spent in sorted(kernels, key=lambda k: -k[1])[:40]
    )
    return table, lines


def _group(kernel: str) -> str:
    name = kernel.lower()
    if any(word in name for word in ("_mask", "_rectify")):
        return "biases, sums and rectifiers, fused"
    if any(word in name for word in ("elementwise", "copy", "memcpy", "nchwtonhwc", "nhwctonchw")):
        return "element by element (bias, ReLU, sums, casts, layouts)"
    if any(word in name for word in ("gemm", "conv", "cutlass", "nvjet", "dgrad", "fprop", "cudnn")):
        return "convolutions and matrix products"
    return "others (pooling, reductions, resizing)"


PARTS = ("gradients", "koniq", "memory", "profile", "loops")
TITLES = {
    "gradients": "Gradients",
    "loops": "The suite beside plain loops",
    "koniq": "A run of KonIQ-10k's size, hyperiqa",
    "memory": "Memory of one input gradient of the model as it is",
    "profile": "Profile",
}


def main() -> int:
    """Measure the parts asked for; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--part", action="append", choices=PARTS, help="again for more; all if left out")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    best, lines = ceilings(options.device)
    result: dict[str, Any] = {
        "device": device_name(options.device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "ceilings": best,
    }
    text = [f"# Measured on {result['device']}", "", f"PyTorch {torch.__version__}. {lines[0]}"]
    work: dict[str, Callable[[str], tuple[Any, Lines]]] = {
        "gradients": lambda device: gradients(device, best["bfloat16_tflops"]),
        "loops": loops,
        "koniq": koniq,
        "memory": memory,
        "profile": profile,
    }
    failed = False
    for part in options.part or PARTS:
        began = time.perf_counter()
        try:
            result[part], lines = work[part](options.device)
        except Exception as error:  # noqa: BLE001 - what is measured already is kept, and the failure shown
            traceback.print_exc()
            failed, lines = True, [f"Failed: {error}"]
            result[part] = {"failed": str(error)}
        spent = time.perf_counter() - began
        text += ["", f"## {TITLES[part]}", "", *lines, "", f"({spent:.0f} s)"]
        (options.out / "gpu.json").write_text(json.dumps(result, indent=1))
        (options.out / "gpu.md").write_text("\n".join(text) + "\n")
        print(f"{part}: {spent:.0f} s", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
