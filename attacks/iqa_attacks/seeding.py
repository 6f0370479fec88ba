"""Randomness as an argument: every draw comes from (seed, image id, restart)."""

from __future__ import annotations

import hashlib
import json

import torch


def start_generator(seed: int, image_id: str, restart: int) -> torch.Generator:
    """Return the CPU generator of one image's restart, the same whatever the batch, order or worker."""
    text = json.dumps([seed, image_id, restart], ensure_ascii=True)
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
