"""Build the wheel, look what is in it, install it in a bare environment and run it from another folder.

Run by `make wheel`; not a pytest file, because the bare environment takes minutes to install.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "iqa_attacks",
    "iqa_errors",
    "iqa_harness",
    "iqa_models",
    "iqa_reports",
    "iqa_results",
    "iqa_suites",
}
SUFFIXES = {".py", ".toml", ".typed", ".j2", ".css", ".js", ".json", ".csv", ".html"}


def main() -> None:
    """Do all of it; raise on the first thing that is wrong."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build(folder / "dist")
        check_content(wheel)
        print(f"{wheel.name}: {check_size(wheel)} KiB, nothing but iqa_* in it")  # noqa: T201
        run_bare(wheel, folder)
        print("installed in a bare environment: --help and a smoke run from another folder work")  # noqa: T201


def build(out: Path) -> Path:
    """Build the wheel of the checkout."""
    run([sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)], cwd=ROOT)
    (wheel,) = out.glob("*.whl")
    return wheel


def check_content(wheel: Path) -> None:
    """Hold the wheel against the allow-list: the six packages with their code and data, and its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {n.split("/")[0] for n in names}
    metadata = {t for t in tops if t.endswith(".dist-info")}
    require(tops - metadata == PACKAGES, f"the wheel holds {sorted(tops)}")
    for name in names:
        if name.split("/")[0] in PACKAGES:
            require(Path(name).suffix in SUFFIXES, f"the wheel holds {name}")
    for needed in (
        "iqa_suites/definitions/smoke.toml",
        "iqa_suites/definitions/demo.toml",
        "iqa_suites/definitions/demo-full.toml",
        "iqa_harness/training/presets/demo_lite0.toml",
        "iqa_reports/templates/report.html.j2",
        "iqa_models/py.typed",
        "iqa_attacks/py.typed",
        "iqa_suites/py.typed",
    ):
        require(needed in names, f"the wheel lacks {needed}")


def check_size(wheel: Path) -> int:
    """Return the wheel's size in KiB, at most a mebibyte: code and text only."""
    size = wheel.stat().st_size // 1024
    require(size <= 1024, f"the wheel is {size} KiB")
    return size


def run_bare(wheel: Path, folder: Path) -> None:
    """Install the wheel alone, without extras, and use it where the checkout is out of reach."""
    venv.create(folder / "venv", with_pip=True)
    binaries = folder / "venv" / "bin"
    # No pin of ours may take current packages away from a user's environment.
    beside = ["requests>=2.32", "jupyterlab"]
    run([str(binaries / "pip"), "install", "--quiet", str(wheel), *beside], cwd=folder)
    run([str(binaries / "pip"), "check"], cwd=folder)
    work = folder / "work"
    work.mkdir()
    harness = str(binaries / "iqa-harness")
    run([harness, "--help"], cwd=work)
    run([harness, "models", "list"], cwd=work)
    code = subprocess.run([harness, "demo"], cwd=work, capture_output=True, text=True, check=False)
    require(
        code.returncode == 3 and "pip install 'iqa-harness[demo]'" in code.stderr,
        f"the demo without its extra says {code.stderr!r}",
    )
    run([harness, "attack", "--suite", "smoke", "--model", "linear"], cwd=work)
    require((work / "iqa-store/runs/smoke/report/index.html").is_file(), "the smoke run wrote no page")


def run(command: list[str], *, cwd: Path) -> None:
    """Run a command with nothing of this checkout or the user's caches in its environment."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    clean["XDG_CACHE_HOME"] = str(cwd / "cache")
    # The user's pip cache is worth keeping; everything else is fresh.
    clean.setdefault("PIP_CACHE_DIR", str(Path.home() / ".cache" / "pip"))
    subprocess.run(command, cwd=cwd, env=clean, check=True)


def require(condition: bool, message: str) -> None:
    """Stop with a message unless the condition holds."""
    if not condition:
        raise SystemExit(f"wheel check: {message}")


if __name__ == "__main__":
    main()
