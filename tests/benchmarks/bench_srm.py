"""Times the SRM neck's links, Nystroem and full, over growing numbers of tokens, and each solve route.

Run by hand: ``python tests/benchmarks/bench_srm.py [--threads N] [--device cuda] [--repeats N]``. Prints the
growth table with the exponents fitted to multiply-adds, time and memory, then a table of the routes that
solve the landmark system; fails if the links' time or memory grows faster than the tokens beyond noise, or
full attention does not lose at the largest size.
"""

# ruff: noqa: T201 - a script that prints its tables

from __future__ import annotations

import argparse
import sys

import torch
from torch.utils.benchmark import Timer

from iqa_models.profile import GROWTH_SIDES, Growth, fit_exponent, growth_table
from iqa_models.srm import SRMConfig, solve_system
from iqa_models.srm.attention import softmax_block
from iqa_models.srm.solve import condition_number, regularised
from iqa_models.srm.tokens import normalise_tokens

SIDES = (*GROWTH_SIDES, 768, 896)
STEEPEST = 1.25
"""Largest fitted exponent that still counts as linear on a busy machine."""

ROUTES = {
    "default": SRMConfig(),
    "svd": SRMConfig(solver="svd"),
    "lu": SRMConfig(solver="lu"),
    "neumann": SRMConfig(solver="neumann"),
    "lu, equilibrated": SRMConfig(solver="lu", equilibrate=True),
}


def show_growth(rows: list[Growth]) -> dict[str, float]:
    """Print a line a size and the exponents; return the Nystroem form's in time and memory."""
    print(f"{'attention':<10}{'side':>6}{'tokens':>8}{'GMAC':>9}{'ms':>9}{'MB':>9}")
    found: dict[str, float] = {}
    for attention in ("nystroem", "full"):
        own = [row for row in rows if row.attention == attention]
        for row in own:
            assert row.measured is not None
            one = row.measured
            print(
                f"{attention:<10}{row.side:>6}{row.tokens:>8}{row.macs / 1e9:>9.3f}"
                f"{min(one.seconds) * 1e3:>9.2f}{one.peak_bytes / 1e6:>9.1f}"
            )
        tokens = [row.tokens for row in own]
        fits = {
            "multiply-adds": fit_exponent(tokens, [row.macs for row in own]),
            "time": fit_exponent(tokens, [min(row.measured.seconds) for row in own if row.measured]),
            "memory": fit_exponent(tokens, [row.measured.peak_bytes for row in own if row.measured]),
        }
        print(
            f"{attention}: cost ~ tokens^p, " + ", ".join(f"{name} p = {p:.2f}" for name, p in fits.items())
        )
        if attention == "nystroem":
            found = {name: fits[name] for name in ("time", "memory")}
    return found


def show_routes(device: str, threads: int, batch: int) -> None:
    """Print the time of each route on the systems of `batch` images, forward, and with backward."""
    generator = torch.Generator().manual_seed(0)
    keys = normalise_tokens(torch.randn(batch, 4, 32, 32, generator=generator)).to(device)
    matrix = regularised(softmax_block(keys, keys), SRMConfig().ridge).requires_grad_()
    right = torch.randn(batch, 4, 32, 32, generator=generator).to(device)
    print(
        f"\nsystems of {batch} images, 4 heads, r = 32, kappa {condition_number(matrix).median().item():.0f}"
    )
    print(f"{'route':<18}{'forward ms':>12}{'with backward ms':>18}")
    for name, config in ROUTES.items():

        def forward(config: SRMConfig = config) -> torch.Tensor:
            return solve_system(matrix, right, config).solution

        def both(config: SRMConfig = config) -> None:
            torch.autograd.grad(forward(config).sum(), matrix)

        times = [
            Timer("step()", globals={"step": step}, num_threads=threads).blocked_autorange(min_run_time=0.3)
            for step in (forward, both)
        ]
        print(f"{name:<18}{times[0].median * 1e3:>12.3f}{times[1].median * 1e3:>18.3f}")


def main() -> int:
    """Measure, print, and return 1 if the links are not linear or full attention is not slower."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = growth_table(SRMConfig(), sides=SIDES, device=arguments.device, repeats=arguments.repeats)
    steep = {name: p for name, p in show_growth(rows).items() if p > STEEPEST}
    last = {
        row.attention: min(row.measured.seconds) for row in rows if row.measured and row.side == SIDES[-1]
    }
    show_routes(arguments.device, arguments.threads, arguments.batch)
    for name, p in steep.items():
        print(f"FAILED: the links' {name} grows with exponent {p:.2f} > {STEEPEST}")
    if last["nystroem"] >= last["full"]:
        print("FAILED: full attention is as fast at the largest size")
    return int(bool(steep) or last["nystroem"] >= last["full"])


if __name__ == "__main__":
    sys.exit(main())
