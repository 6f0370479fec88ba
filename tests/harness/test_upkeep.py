"""Stores over time: checked, tidied, exported, and joined with those of other machines."""

import csv
import json
import os
import shutil
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from helpers import tiny
from iqa_harness.cells.plan import plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.merge import beside, joined
from iqa_harness.running.run import run_suite
from iqa_harness.stores.health import check_runs, collect, find_waste
from iqa_harness.stores.transfer import export_run, merge_run, open_source
from iqa_models import create_model
from iqa_results import BadManifest, BadPart, ResultStore, Selection
from iqa_suites import parse_suite

SUITE = (
    tiny.SUITE.replace("steps = 4\nreport_steps = [1, 2]", "steps = 2\nreport_steps = [1]")
    .replace('"pairwise_inversion", "raise", "lower"]', '"pairwise_inversion"]')
    .replace("restarts = 2", "restarts = 1")
)


def _entrants(*seeds):
    return [Entrant(f"m{seed}", create_model("linear", seed=seed)) for seed in seeds]


def _run(store, images, seeds=(1,), text=SUITE, run="r", **options):
    entrants, suite = _entrants(*seeds), parse_suite(text, "tiny")
    told = {name: options.pop(name) for name in ("executor", "on_cell") if name in options}
    config = RunConfig(run, text, **options)
    return run_suite(plan(suite, entrants, images), entrants, config, store, **told)


@pytest.fixture(scope="module")
def done(tmp_path_factory, images):
    """A store with a run of one model, images kept; not to be written to."""
    store = ResultStore(tmp_path_factory.mktemp("done"))
    return store, _run(store, images, keep_images=True)


@pytest.fixture
def store(done, tmp_path):
    """A copy of it."""
    shutil.copytree(done[0].root, tmp_path / "store")
    return ResultStore(tmp_path / "store")


def _flip_a_bit(path):
    """Damage a page of a column, the size unchanged, as a disk does it."""
    meta = pq.ParquetFile(path).metadata.row_group(0)
    chunk = next(
        meta.column(i) for i in range(meta.num_columns) if meta.column(i).path_in_schema == "adv_score"
    )
    damaged = bytearray(path.read_bytes())
    damaged[(chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size - 3] ^= 1
    path.write_bytes(damaged)


def test_a_whole_store_has_no_problem(done):
    """Every part and every kept image of a fresh run is what its manifest says."""
    assert list(check_runs(done[0], ["r"])) == []


def test_every_kind_of_damage_is_found(done, store):
    """Missing, cut, swapped and foreign parts, and a damaged image: each named once, with its file."""
    cells = done[1].cells
    attacked = next(c for c in cells if c.attack == "pgd")
    store.cell_path(cells[0].key).unlink()
    cut = store.cell_path(cells[1].key)
    cut.write_bytes(cut.read_bytes()[:-20])
    shutil.copyfile(store.cell_path(cells[2].key), store.cell_path(cells[3].key))
    foreign = store.read_cell(cells[4].key).to_pylist()
    store.write_cell(cells[4].key, [{**row, "model": "another"} for row in foreign])
    fewer = store.read_cell(cells[5].key).to_pylist()
    store.write_cell(cells[5].key, fewer[1:])
    image = store.examples_path(attacked.key)
    image.write_bytes(image.read_bytes()[:-20])
    found = {problem.key: problem for problem in check_runs(store, ["r"])}
    kinds = ["missing", "damaged", None, "damaged", "foreign", "foreign"]
    assert [found[c.key].kind if c.key in found else None for c in cells[:6]] == kinds
    assert "model is another" in found[cells[4].key].detail
    assert found[attacked.key].kind == "damaged"
    assert "examples" in found[attacked.key].detail
    assert len(found) == 6


def test_check_deletes_and_attack_computes_again(done, store, images, cli):
    """`runs check --delete` says 1 and makes room; the next start fills exactly that hole."""
    key = done[1].cells[4].key
    path = store.cell_path(key)
    _flip_a_bit(path)
    code, out, _ = cli("runs", "check", "--store", str(store.root), "--delete")
    assert (code, out.splitlines()[-1]) == (1, "1 run(s), 1 problem(s)")
    seen = []
    again = _run(store, images, on_cell=lambda cell, status: seen.append((cell.key, status)))
    assert [k for k, status in seen if status == "done"] == [key]
    rows = store.read_cells(c.key for c in again.cells).drop_columns(["seconds"])
    assert rows.equals(done[0].read_cells(c.key for c in done[1].cells).drop_columns(["seconds"]))
    assert cli("runs", "check", "--store", str(store.root))[0] == 0


def test_damaged_images_are_deleted_without_the_rows(done, store, cli):
    """The rows of the cell are whole and stay as they are."""
    key = next(c.key for c in done[1].cells if c.attack == "pgd")
    rows, image = store.cell_path(key).read_bytes(), store.examples_path(key)
    image.write_bytes(image.read_bytes()[:-20])
    assert cli("runs", "check", "--store", str(store.root), "--delete")[0] == 1
    assert not image.exists()
    assert store.cell_path(key).read_bytes() == rows
    assert cli("runs", "check", "--store", str(store.root))[0] == 0


def test_damaged_rows_are_deleted_without_the_images(done, store, images, cli):
    """Whole images of damaged or foreign rows stay; those that are damaged themselves go too."""
    cells = [c.key for c in done[1].cells if c.attack == "pgd"][:3]
    _flip_a_bit(store.cell_path(cells[0]))
    foreign = [{**row, "model": "another"} for row in store.read_cell(cells[1]).to_pylist()]
    store.write_cell(cells[1], foreign)
    _flip_a_bit(store.cell_path(cells[2]))
    image = store.examples_path(cells[2])
    image.write_bytes(image.read_bytes()[:-20])
    before = {key: store.examples_path(key).read_bytes() for key in cells[:2]}
    assert cli("runs", "check", "--store", str(store.root), "--delete")[0] == 1
    assert [store.has_cell(key) for key in cells] == [False] * 3
    assert [store.has_examples(key) for key in cells] == [True, True, False]
    assert _run(store, images).status == "complete"
    assert {key: store.examples_path(key).read_bytes() for key in before} == before
    assert cli("runs", "check", "--store", str(store.root))[0] == 0


def test_what_another_version_wrote_is_reported_and_kept(done, store, cli):
    """Rows and images of another schema are whole: --delete leaves them; a damaged one of them goes."""
    keys = [c.key for c in done[1].cells if c.attack == "pgd"][:2]
    paths = [store.cell_path(keys[0]), store.examples_path(keys[0]), store.cell_path(keys[1])]
    for path in paths:
        table = pq.read_table(path).replace_schema_metadata({"schema_version": "0"})
        pq.write_table(table, path, write_page_checksum=True)
    _flip_a_bit(paths[2])
    found = [(problem.key, problem.kind, problem.examples) for problem in check_runs(store, ["r"])]
    assert found == [
        (keys[0], "version", False), (keys[0], "version", True), (keys[1], "damaged", False),
    ]  # fmt: skip
    code, out, _ = cli("runs", "check", "--store", str(store.root), "--delete")
    assert (code, out.count("written by another version")) == (1, 2)
    assert [path.exists() for path in paths] == [True, True, False]


def test_what_no_run_names_is_found_and_deleted(done, store, images):
    """Cells of a removed run go, with their images; those that another run shares stay."""
    _run(store, images, text=SUITE.replace("seed = 3", "seed = 4"), run="other", keep_images=True)
    assert find_waste(store).cells == {}
    shutil.rmtree(store.root / "runs" / "other")
    alone = next(key for key in store.example_sizes() if key not in {c.key for c in done[1].cells})
    store.cell_path(alone).unlink()  # images without rows, as a start that was killed between the two leaves
    old, new = (store.root / "cells" / f".x.{name}.part" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    waste = find_waste(store)
    own = {c.key for c in done[1].cells}
    assert set(waste.cells) == (store.cell_sizes().keys() | store.example_sizes().keys()) - own
    assert waste.cells[alone] == store.example_sizes()[alone]
    both = next(key for key in store.example_sizes() if key not in own and store.has_cell(key))
    assert waste.cells[both] == store.cell_sizes()[both] + store.example_sizes()[both]
    assert waste.fragments == [old]  # the other may be of a writer that lives
    collect(store, waste)
    assert store.cell_sizes().keys() == own
    assert store.example_sizes().keys() <= own
    assert list(check_runs(store, ["r"])) == []
    assert (old.exists(), new.exists()) == (False, True)


def test_nothing_is_deleted_while_a_manifest_cannot_be_read(store):
    """A damaged manifest names cells that nobody knows: tidying stops."""
    (store.root / "runs" / "r" / "manifest.json").write_text("{")
    with pytest.raises(BadManifest):
        find_waste(store)


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_an_export_holds_every_row(done, tmp_path, ending):
    """One file of all rows, value for value, floats of a CSV included."""
    store, manifest = done
    out = tmp_path / f"rows.{ending}"
    count = export_run(store, "r", out)
    expected = store.read_cells(c.key for c in manifest.cells)
    assert count == expected.num_rows
    if ending == "parquet":
        assert pq.read_table(out).equals(expected)
    else:
        with out.open(newline="") as file:
            read = list(csv.DictReader(file))
        assert list(read[0]) == expected.schema.names
        for column in ("adv_score", "epsilon", "linf"):
            assert [float(row[column]) for row in read] == expected.column(column).to_pylist()
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_an_export_needs_an_ending_it_knows(done, tmp_path):
    """The ending is the format."""
    with pytest.raises(RunError, match=r"\.parquet, \.csv or \.zip"):
        export_run(done[0], "r", tmp_path / "rows.xlsx")


def test_a_zip_is_a_store_that_can_be_merged(done, tmp_path, images):
    """Exported here, merged there: same rows, same images, and nothing is left to compute."""
    export_run(done[0], "r", tmp_path / "r.zip")
    other = ResultStore(tmp_path / "other")
    with open_source(str(tmp_path / "r.zip")) as source:
        manifest, new = merge_run(other, source, "r")
    assert (manifest.status, new) == ("complete", len(done[1].cells))
    assert other.cell_sizes() == done[0].cell_sizes()
    assert other.example_sizes() == done[0].example_sizes()
    seen = []
    _run(other, images, on_cell=lambda cell, status: seen.append(status))
    assert set(seen) == {"cached"}


@pytest.mark.parametrize("name", ["../out.txt", "/etc/x", "cells/../../x", "elsewhere/x", "cells\\..\\x"])
def test_a_zip_cannot_lead_out_of_its_folder(tmp_path, name):
    """An archive with such a name is refused before anything is unpacked."""
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("runs/r/manifest.json", "{}")
        archive.writestr(name, "x")
    with pytest.raises(RunError, match="no part of a store"), open_source(str(tmp_path / "bad.zip")):
        pass


@pytest.mark.parametrize(
    "names", [["./"], [], ["cells/", "runs/"], ["cells/aa/x.parquet"], ["runs/r/table.parquet"]]
)
def test_a_zip_without_a_run_is_refused(tmp_path, cli, names):
    """An empty archive, one of folders only, or one without a manifest: said, with exit code 3."""
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        for name in names:
            archive.writestr(name, "")
    code, _, err = cli("runs", "merge", str(tmp_path / "odd.zip"), "--store", str(tmp_path / "store"))
    assert code == 3
    assert "odd.zip: not a store, or an empty one" in " ".join(err.split())
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cells/00/" + "0" * 64 + ".parquet", "runs/q/manifest.json"])
def test_a_zip_that_unpacks_to_far_more_is_refused(done, tmp_path, name):
    """A gigabyte of zeros in a megabyte: refused by the archive's own directory, nothing is unpacked."""
    export_run(done[0], "r", tmp_path / "r.zip")
    with zipfile.ZipFile(tmp_path / "r.zip", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, bytes(200_000_000))
    before = set(Path(tempfile.gettempdir()).glob("iqa-harness-*"))
    words = r"200,\d\d\d,\d\d\d bytes packed into far fewer"
    with pytest.raises(RunError, match=words), open_source(str(tmp_path / "r.zip")):
        pass
    assert set(Path(tempfile.gettempdir()).glob("iqa-harness-*")) == before


def test_only_what_a_merge_needs_is_unpacked(done, tmp_path):
    """Tables, pages and whatever else lies in an archive stay packed, however large they are."""
    export_run(done[0], "r", tmp_path / "r.zip")
    with zipfile.ZipFile(tmp_path / "r.zip", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("runs/r/report/index.html", bytes(200_000_000))
    with open_source(str(tmp_path / "r.zip")) as source:
        names = {path.name for path in source.root.rglob("*") if path.is_file() and path.suffix != ".parquet"}
        assert names == {"manifest.json"}
        assert merge_run(ResultStore(tmp_path / "other"), source, "r")[1] == len(done[1].cells)


@pytest.mark.parametrize("damage", ["cut", "member", "encrypted", "method"])
def test_a_damaged_or_encrypted_zip_is_one_clear_error(done, tmp_path, cli, damage):
    """Cut off, a member changed, locked with a password, packed as nobody can: exit code 3, one line."""
    path = tmp_path / "r.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("runs/r/manifest.json", "{}" * 500)
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "member":
        content[directory - 3] ^= 0xFF
    elif damage == "encrypted":
        content[6] |= 1
        content[directory + 8] |= 1
    else:
        content[8] = content[directory + 10] = 97
    path.write_bytes(content)
    code, _, err = cli("runs", "merge", str(path), "--store", str(tmp_path / "store"))
    assert (code, err.count("\n")) == (3, 1)
    assert f"{path}: " in err
    assert ("is encrypted" if damage == "encrypted" else "not a whole zip file") in err


def test_a_zip_of_another_packer_is_read(done, tmp_path):
    """`zip -r` and tar's friends name the folder itself, and every path from it."""
    export_run(done[0], "r", tmp_path / "r.zip")
    with zipfile.ZipFile(tmp_path / "r.zip") as made, zipfile.ZipFile(tmp_path / "other.zip", "w") as packed:
        packed.writestr("./", "")
        for name in made.namelist():
            packed.writestr(f"./{name}", made.read(name))
    with open_source(str(tmp_path / "other.zip")) as source:
        assert source.cell_sizes() == done[0].cell_sizes()


def test_a_run_computed_on_two_machines_becomes_one(tmp_path, images):
    """Each computed one model; joined, the run has both, with the cost and the workers of both."""
    here, there = ResultStore(tmp_path / "here"), ResultStore(tmp_path / "there")
    ours, theirs = _run(here, images, (1,)), _run(there, images, (2,))
    manifest, new = merge_run(here, there, "r")
    assert new == len(theirs.cells)
    assert [model.name for model in manifest.models] == ["m1", "m2"]
    assert manifest.status == "complete"
    assert manifest.forwards == ours.forwards + theirs.forwards
    assert merge_run(here, there, "r")[1] == 0
    whole = ResultStore(tmp_path / "whole")
    together = _run(whole, images, (1, 2))
    assert {c.key for c in manifest.cells} == {c.key for c in together.cells}
    seen = []
    _run(here, images, (1, 2), on_cell=lambda cell, status: seen.append(status))
    assert set(seen) == {"cached"}


class TidiedMeanwhile(ResultStore):
    """A store that another process tidies after every cell that is copied into it."""

    def copy_cell(self, key, source):
        new = super().copy_cell(key, source)
        collect(self, find_waste(self))
        return new


@pytest.mark.parametrize("join", [joined, lambda mine, there: beside(mine, there, 0.0)])
def test_a_model_that_changed_elsewhere_has_changed(done, join):
    """Its cells of that machine or process are in the run: the check after them that failed stays failed."""
    (model,) = done[1].models
    assert model.checks["gradient_unchanged"]["passed"]
    check = {**model.checks["gradient_unchanged"], "value": 1.0, "passed": False}
    changed = model.model_copy(update={"checks": {**model.checks, "gradient_unchanged": check}})
    other = done[1].model_copy(update={"models": (changed,)})
    for here, there in ((done[1], other), (other, done[1])):
        assert join(here, there).models == (changed,)
    assert join(done[1], done[1]).models == (model,)
    stranger = changed.model_copy(update={"sha256": "0" * 64})
    assert beside(done[1], done[1].model_copy(update={"models": (stranger,)}), 0.0).models == (model,)


def test_tidying_during_a_merge_deletes_nothing_of_it(done, tmp_path):
    """The manifest is there before the cells, so they are some run's from the first on."""
    target = TidiedMeanwhile(tmp_path / "new")
    manifest, new = merge_run(target, done[0], "r")
    assert (manifest.status, new) == ("complete", len(done[1].cells))
    assert target.cell_sizes() == done[0].cell_sizes()
    assert target.example_sizes() == done[0].example_sizes()


def test_a_merge_waits_for_who_writes_the_run(done, tmp_path):
    """While another process holds the run its manifest is not touched; then the merge goes through."""
    target = ResultStore(tmp_path / "held")
    with ThreadPoolExecutor(1) as pool:
        with target.locked_run("r"):
            merging = pool.submit(merge_run, target, done[0], "r")
            with pytest.raises(TimeoutError):
                merging.result(0.5)
            assert target.list_runs() == []
        assert merging.result(60)[0].status == "complete"
    assert target.cell_sizes() == done[0].cell_sizes()


def test_runs_that_do_not_fit_together_are_refused(tmp_path, images):
    """Another suite, other images or other weights under one name: nothing is copied."""
    here, there, third = (ResultStore(tmp_path / name) for name in ("here", "there", "third"))
    _run(here, images)
    _run(there, images, text=SUITE.replace("seed = 3", "seed = 4"))
    before = here.cell_sizes()
    with pytest.raises(RunError, match="of other suite"):
        merge_run(here, there, "r")
    entrants = [Entrant("m1", create_model("linear", seed=9))]
    suite = parse_suite(SUITE, "tiny")
    run_suite(plan(suite, entrants, images), entrants, RunConfig("r", SUITE), third)
    for changes, words in (
        ({"chosen": Selection(limit=2), "images": 2}, "of the first 2 images .* here and of all"),
        ({"split": "val"}, "val split"),
    ):
        manifest = here.read_manifest("r")
        data = manifest.data.model_copy(update=changes)
        limited = ResultStore(tmp_path / "limited")
        limited.write_manifest(manifest.model_copy(update={"data": data}))
        with pytest.raises(RunError, match=words):
            merge_run(limited, here, "r")
        assert limited.cell_sizes() == {}
    with pytest.raises(RunError, match="'m1' has other weights"):
        merge_run(here, third, "r")
    assert here.cell_sizes() == before


def test_a_damaged_part_is_not_merged(done, store, tmp_path):
    """What comes from elsewhere is verified before it is written."""
    path = store.cell_path(done[1].cells[4].key)
    _flip_a_bit(path)
    with pytest.raises(BadPart, match="damaged"):
        merge_run(ResultStore(tmp_path / "new"), store, "r")


def test_runs_are_listed_and_shown(store, cli):
    """The commands print what the manifest says, as text and as JSON."""
    folder = ("--store", str(store.root))
    code, out, _ = cli("runs", "list", *folder)
    assert code == 0
    assert "tiny" in out
    assert "15/15" in out
    listed = json.loads(cli("runs", "list", "--json", *folder)[1])
    assert [(run["run"], run["done"], run["status"]) for run in listed] == [("r", 15, "complete")]
    code, out, _ = cli("runs", "show", "r", *folder)
    assert code == 0
    assert "r, complete: 15 of 15 cells, 0 failed" in out
    assert "inline on cpu" in out
    assert json.loads(cli("runs", "show", "r", "--json", *folder)[1])["run"] == "r"
    code, _, err = cli("runs", "show", "nothing", *folder)
    assert code == 3
    assert "runs there: r" in err
    assert "0 cells that no run names" in cli("runs", "gc", *folder)[1]
    code, out, _ = cli("runs", "export", "r", "rows.csv", *folder)
    assert (code, out.split()[0]) == (0, "rows.csv:")
    code, out, _ = cli("runs", "merge", str(store.root), "--store", "elsewhere")
    assert (code, out.split(",")[0]) == (0, "r: 15 new cells")
