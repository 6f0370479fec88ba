"""Where and with what a run is made."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import json
import platform
import shutil
import subprocess
from pathlib import Path

import torch

from iqa_results import Provenance

PACKAGES = (
    "iqa-harness",
    "torch",
    "timm",
    "pyiqa",
    "numpy",
    "scipy",
    "pillow",
    "scikit-image",
    "pandas",
    "pyarrow",
    "torchattacks",
    "ray",
    "submitit",
)


def collect_provenance(device: str, threads: int) -> Provenance:
    """Return versions, platform and the checkout's commit."""
    commit, dirty = _checkout(Path(__file__).resolve().parent)
    return Provenance(
        packages=installed_versions(PACKAGES),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        device=device,
        threads=threads,
        commit=commit,
        dirty=dirty,
        cuda=torch.version.cuda,
        driver=_driver(),
    )


def _driver() -> str | None:
    """Return the version of the NVIDIA driver, None if there is none."""
    said = _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return said.split("\n", 1)[0].strip() or None if said else None


def _said(program: str, *arguments: str) -> str | None:
    """Return what another program prints, None if there is none or it fails."""
    found = shutil.which(program)
    if found is None:
        return None
    done = subprocess.run(  # noqa: S603 - fixed arguments
        [found, *arguments], capture_output=True, text=True, check=False, timeout=30
    )
    return done.stdout.strip() if done.returncode == 0 else None


@functools.cache
def code_version() -> str:
    """Return version and commit of the running code, the same for the life of the process."""
    commit, dirty = _checkout(Path(__file__).resolve().parent)
    version = installed_versions(("iqa-harness",))["iqa-harness"]
    return version + (f"+{commit[:12]}{'.dirty' if dirty else ''}" if commit else "")


@functools.cache
def sources_sha256() -> str:
    """Return a hash of our source files and of the packages that compute with them.

    Unlike a commit it tells an edited checkout from a clean one, and asks no other program.
    """
    digest = hashlib.sha256(json.dumps(installed_versions(PACKAGES)).encode())
    for name in ("iqa_attacks", "iqa_harness", "iqa_models", "iqa_reports", "iqa_results", "iqa_suites"):
        for folder in importlib.import_module(name).__path__:
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(f"{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def installed_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the installed version of each package, 'not installed' where there is none."""
    return {name: _version(name) for name in packages}


@functools.cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@functools.cache
def _checkout(folder: Path) -> tuple[str | None, bool | None]:
    """Return commit and dirtiness of the checkout this file is in; None, None for an installed package."""
    run = functools.partial(_said, "git", "-C", str(folder))
    # An environment inside somebody else's checkout must not pass for ours: the file must be tracked.
    if run("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None, None
    commit, status = run("rev-parse", "HEAD"), run("status", "--porcelain")
    return commit, None if status is None else bool(status)
