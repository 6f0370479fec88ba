"""One small built set and a few photographs for all data tests."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from iqa_harness.data.demo import open_embedded, smoke_recipe
from iqa_harness.data.photographs import BASE, read_crop
from iqa_harness.data.store import StoredImageSet


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """On a busy machine two threads a small HaarPSI wait for each other ten times as long as one computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def photos() -> list[NDArray[np.uint8]]:
    return [read_crop(photograph, 128) for photograph in BASE[:3]]


@pytest.fixture(scope="session")
def smoke_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def smoke(smoke_cache: Path) -> StoredImageSet:
    return open_embedded(smoke_recipe(), cache_dir=smoke_cache, progress=False)
