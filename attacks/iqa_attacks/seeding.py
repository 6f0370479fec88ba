"""Randomness as an argument: every draw comes from (seed, image id, restart) and what it is for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


def start_generator(seed: int, image_id: str, restart: int) -> torch.Generator:
    """Return the CPU generator of one image's restart, the same whatever the batch, order or worker."""
    return torch.Generator().manual_seed(_number(seed, image_id, restart))


def draw_seeds(seed: int, image_id: str, moment: Sequence[int | str], draws: int) -> tuple[int, ...]:
    """Return the seeds of a stochastic model's draws on one image.

    Args:
        seed: seed of the attack.
        image_id: the image.
        moment: what the draws are for: (restart, step) of an attack, ("score",) for a stored score.
        draws: how many.
    """
    return tuple(_number(seed, image_id, *moment, "draw", draw) for draw in range(draws))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Run with torch's global generators (CPU and `device`) seeded, and put them back afterwards.

    A model that draws from anything else (NumPy, `random`, a generator of its own) is not reached.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        if device.type == "cpu":
            # torch.manual_seed keeps a stack trace for every accelerator that is not in use: milliseconds.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        yield


def _number(*parts: int | str) -> int:
    text = json.dumps(parts, ensure_ascii=True)
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
