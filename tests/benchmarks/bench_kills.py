"""Commands killed with SIGKILL at random moments and started again: is anything lost, doubled or left behind?

`attack` (alone and with worker processes), `evaluate`, `report`, `runs merge` and `train` are each killed, at
moments drawn between start and end, six times in a row at the most, and then run to the end. Their rows,
tables and weights are compared with those of a run that nobody disturbed. Faults are: a row that differs,
anything that `runs gc` still names when it has deleted, a temporary folder of ours in the system's place for
them, a process that outlives its command, an exit code other than 0, and a hang.

A hang is a lack of progress, not of time, so that other work on the machine makes none: for 20 s all
processes of a command together take less than 1 s of CPU and write nothing, or they take 20 s of CPU more
than the undisturbed command took. It is read from /proc: Linux only.

Run so far, on two cores beside one other process: 202 kills in 48 commands of seed 21, 0 differing rows,
0 leftovers, 0 exits of 70, 0 hangs, 1,128 s.

    python tests/benchmarks/bench_kills.py --kills 200 --seed 0 --log kills.log
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from small_world import make_world

from iqa_results import ResultStore, read_parquet
from iqa_results.schema import ROW_SCHEMA, RUN_TABLES

HANG = 20.0
"""Seconds without progress, or of CPU beyond those of the command nobody disturbed."""
ALIVE = 1.0
"""Seconds of CPU in that time that are progress."""
MOST_KILLS = 6
"""Kills of a command before it is run to the end."""
LINGER = 10.0
"""Seconds that processes of an ended command may take to end, too."""
ATTACK = (
    "attack",
    "--suite",
    "../suite.toml",
    "-m",
    "linear",
    "-m",
    "../mine",
    "--run",
    "r",
    "--tune",
    "off",
    "--quiet",
)
DATA = "../small.csv?mos_range=1,5"
SETTINGS = ("epochs=2", "images_per_epoch=8", "batch_size=4", "crop=32", "head_start=random")
COMMANDS: dict[str, tuple[str, ...]] = {
    "attack": ATTACK,
    "attack, workers": (*ATTACK, "--executor", "processes", "--workers", "1"),
    "evaluate": ("evaluate", "-m", "linear", "-m", "../mine", "-d", DATA, "--quiet"),
    "report": ("report", "r"),
    "merge": ("runs", "merge", "../r.zip"),
    "train": (
        "train", "demo_resnet10t", "--data", DATA, "--out", "trained", "--quiet",
        *(part for text in SETTINGS for part in ("--set", text)),
    ),
}  # fmt: skip


class Use(NamedTuple):
    """What all processes of a command have used so far."""

    cpu: float
    """Seconds, those of ended children included."""
    written: int
    """Bytes handed to the system."""
    processes: int
    """Those that live."""


def use_of(session: int) -> Use:
    """Add up the processes of a session."""
    cpu, written, living = 0.0, 0, 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) != session or fields[0] == "Z":
                continue
            living += 1
            cpu += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
            words = (folder / "io").read_text().split()
            written += int(words[words.index("wchar:") + 1])
    return Use(cpu, written, living)


def watch(child: subprocess.Popen[str], cpu: float) -> tuple[int | None, float]:
    """Wait for a command; return its exit code, None for a hang, and the CPU seconds it took.

    Args:
        child: the head of its session.
        cpu: seconds beyond which it goes round in circles.
    """
    last, seen, used = time.monotonic(), use_of(child.pid), 0.0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(timeout=0.5), used
        now = use_of(child.pid)
        used = max(used, now.cpu)
        if now.cpu - seen.cpu >= ALIVE or now.written > seen.written:
            last, seen = time.monotonic(), now
        if time.monotonic() - last > HANG or used > cpu:
            end(child.pid)
            child.wait()
            return None, used


def end(session: int) -> None:
    """Kill what is left of a command."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(session, signal.SIGKILL)


def outlived(sessions: list[int]) -> list[str]:
    """Return the commands whose processes have not ended some time after them, and end those."""
    until = time.monotonic() + LINGER
    while time.monotonic() < until and any(use_of(session).processes for session in sessions):
        time.sleep(0.2)
    left = [session for session in sessions if use_of(session).processes]
    for session in left:
        end(session)
    return [f"processes outlive their command by {LINGER:g} s" for _ in left]


def start(folder: Path, arguments: tuple[str, ...]) -> subprocess.Popen[str]:
    """Start the command line in a folder, as the head of a session of processes."""
    temporary = folder / "system"
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "iqa_harness", *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=(folder / "stderr").open("w"),
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)},
    )


def prepare(folder: Path, command: str, world: Path) -> None:
    """Make a folder with what a command needs."""
    folder.mkdir()
    if command == "report":
        shutil.copytree(world / "whole" / "iqa-store", folder / "iqa-store")
        shutil.rmtree(folder / "iqa-store/runs/r/report", ignore_errors=True)


def digest(folder: Path, command: str) -> dict[str, str]:
    """Return hashes of what a command makes, timings left out, by name."""
    store = folder / "iqa-store"
    found: dict[str, str] = {}
    if command in ("attack", "attack, workers", "merge", "report"):
        results = ResultStore(store)
        manifest = results.read_manifest("r")
        rows = results.read_cells(cell.key for cell in manifest.cells).drop_columns(["seconds"])
        assert rows.schema.names == [name for name in ROW_SCHEMA.names if name != "seconds"]
        for place, row in enumerate(rows.to_pylist()):
            found[f"row {place}"] = repr(row)
        found["status"] = manifest.status
    if command in ("attack", "attack, workers", "report"):
        table = read_parquet(store / "runs/r/table.parquet", RUN_TABLES["table"].arrow)
        found["table"] = repr(table.to_pylist())
    if command == "report":
        found["page"] = str(sorted(p.name for p in (store / "runs/r/report").rglob("*") if p.is_file()))
    if command == "evaluate":
        found["table"] = (store / "evaluations/evaluation/table.csv").read_text()
    if command == "train":
        for weights in sorted((folder / "trained").rglob("*.safetensors")):
            name = str(weights.relative_to(folder).parent)
            found[name] = hashlib.sha256(weights.read_bytes()).hexdigest()
    return found


def left_behind(folder: Path) -> list[str]:
    """Delete with `runs gc` what it finds, as old as that has to be, and return what is still there."""
    old = time.time() - 2 * 86400
    for path in folder.rglob(".*.part"):
        os.utime(path, (old, old))
    for path in (folder / "iqa-store" / "tmp").glob("work-*"):
        os.utime(path, (old, old))
    done = start(folder, ("runs", "gc", "--yes")).wait()
    halves = [str(p) for p in folder.rglob(".*.part")]
    temporary = [str(p) for p in (folder / "iqa-store" / "tmp").glob("*")]
    temporary += [str(p) for p in (folder / "system").glob("iqa-harness*")]
    return [*halves, *temporary, *([f"runs gc ended with {done}"] if done else [])]


def disturb(
    command: str, folder: Path, whole: Whole, rng: random.Random, kills: int
) -> tuple[int, list[str], float]:
    """Kill a command some times and run it to the end.

    Returns:
        How often it was killed, faults, and the seconds it takes undisturbed, as far as is known now: on a
        machine that is less busy than before, kills would come too late.
    """
    killed, sessions, code, seconds = 0, [], None, whole.seconds
    for _ in range(kills):
        child = start(folder, COMMANDS[command])
        sessions.append(child.pid)
        begun = time.monotonic()
        try:
            code = child.wait(timeout=rng.uniform(0.2, 1.0) * seconds)
            seconds = seconds if killed else time.monotonic() - begun
            break
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            killed += 1
    else:
        child = start(folder, COMMANDS[command])
        sessions.append(child.pid)
        code, _ = watch(child, whole.cpu + HANG)
    faults = outlived(sessions)
    if code is None:
        faults.append("hang")
    elif code != 0:
        faults.append(f"exit {code}: {(folder / 'stderr').read_text()[-500:]}")
    return killed, faults, seconds


class Whole(NamedTuple):
    """A command that nobody disturbed."""

    seconds: float
    cpu: float
    """Seconds of all its processes."""
    digest: dict[str, str]
    """What it made: see `digest`."""


def undisturbed(command: str, folder: Path, world: Path) -> Whole:
    """Run a command in a new folder."""
    prepare(folder, command, world)
    begun = time.monotonic()
    code, cpu = watch(start(folder, COMMANDS[command]), math.inf)
    assert code == 0, (command, (folder / "stderr").read_text())
    return Whole(time.monotonic() - begun, cpu, digest(folder, command))


def run(kills: int, seed: int, world: Path, log: Path, commands: list[str]) -> Counter[str]:
    """Kill so many processes; return counts of kills, commands and faults."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    make_world(world, test=8)
    counts: Counter[str] = Counter()
    expected: dict[str, Whole] = {}
    with log.open("w", encoding="utf-8", buffering=1) as file:
        first = ["attack"] if {"attack", "report", "merge"} & {*commands} else []  # what these begin with
        for command in (*first, *(name for name in commands if name != "attack")):
            folder = world / ("whole" if command == "attack" else f"whole {command}")
            expected[command] = undisturbed(command, folder, world)
            file.write(f"{command}: {expected[command].seconds:.1f} s undisturbed\n")
            if command == "attack":
                assert start(folder, ("runs", "export", "r", "../r.zip")).wait() == 0
        for turn in itertools.count():
            if counts["kills"] >= kills:
                return counts
            command = commands[turn % len(commands)]
            folder = world / f"turn {turn}"
            prepare(folder, command, world)
            most = min(rng.randint(3, MOST_KILLS), kills - counts["kills"])
            killed, faults, seconds = disturb(command, folder, expected[command], rng, most)
            expected[command] = expected[command]._replace(seconds=seconds)
            if not faults:
                now, whole = digest(folder, command), expected[command].digest
                rows = sum(now.get(name) != whole.get(name) for name in {*now, *whole})
                counts["differing rows"] += rows
                faults += [f"{rows} rows differ"] if rows else []
            left = left_behind(folder)
            counts["leftovers"] += len(left)
            counts["exits of 70"] += sum("exit 70" in fault for fault in faults)
            counts["hangs"] += faults.count("hang")
            counts["kills"] += killed
            counts["commands"] += 1
            counts["faults"] += bool(faults or left)
            file.write(f"turn {turn}, {command}: {killed} kills, {faults + left or 'as undisturbed'}\n")
            if not (faults or left):
                shutil.rmtree(folder)
    return counts


def main() -> int:
    """Kill and print one line; 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("kills.log"))
    parser.add_argument("--commands", nargs="*", default=list(COMMANDS))
    arguments = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        os.environ["IQA_HARNESS_CACHE"] = f"{name}/cache"
        counts = run(arguments.kills, arguments.seed, Path(name).resolve(), arguments.log, arguments.commands)
    names = ("differing rows", "leftovers", "exits of 70", "hangs")
    shown = ", ".join(f"{counts[name]} {name}" for name in names)
    print(  # noqa: T201
        f"{counts['kills']} kills in {counts['commands']} commands, seed {arguments.seed}: {shown}, "
        f"{counts['faults']} faults, {time.monotonic() - begun:.0f} s"
    )
    return int(counts["faults"] > 0)


if __name__ == "__main__":
    sys.exit(main())
