"""One small built set, a few photographs, and what makes miniatures of the public sets."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from helpers.public_sets import TREES
from iqa_harness.data.embedded.built_set import StoredImageSet
from iqa_harness.data.embedded.photographs import BASE, read_crop
from iqa_harness.data.embedded.recipes import embedded_recipe, open_embedded


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """On a busy machine two threads a small HaarPSI wait for each other ten times as long as one computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing a test decodes goes into the user's cache, and no folder of the user's is looked into."""
    folder = tmp_path_factory.mktemp("own-cache")
    monkeypatch.setenv("IQA_HARNESS_CACHE", str(folder))
    monkeypatch.delenv("IQA_HARNESS_DATA", raising=False)
    monkeypatch.delenv("IQA_HARNESS_PIXELS", raising=False)
    return folder


@pytest.fixture(scope="session")
def photos() -> list[NDArray[np.uint8]]:
    return [read_crop(photograph, 128) for photograph in BASE[:3]]


@pytest.fixture(scope="session")
def smoke_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def smoke(smoke_cache: Path) -> StoredImageSet:
    return open_embedded(embedded_recipe("smoke"), cache_dir=smoke_cache, progress=False)


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature of LIVE with its 982 images, to be copied."""
    root = tmp_path_factory.mktemp("live")
    TREES["live"](root)
    return root


def linked(source: str, target: str) -> None:
    """Stand in for a copy: an image is never written to, a label file may be."""
    (os.link if source.endswith(".bmp") else shutil.copyfile)(source, target)


@pytest.fixture
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Path]:
    """Make a public set in miniature and return its folder; the images of LIVE are for reading."""

    def make(name: str, folder: str = "") -> Path:
        root = tmp_path / (folder or name)
        if name == "live":
            return Path(shutil.copytree(request.getfixturevalue("live"), root, copy_function=linked))
        root.mkdir(parents=True)
        TREES[name](root)
        return root

    return make


@pytest.fixture
def scored_list() -> Callable[..., Path]:
    """Write a JSON list of {image, score}."""

    def write(path: Path, items: dict[str, object]) -> Path:
        listed = [{"image": f"some/where/{name}", "score": score} for name, score in items.items()]
        path.write_text(json.dumps(listed))
        return path

    return write
