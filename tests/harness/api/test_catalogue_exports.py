"""What catalogues read of a run: equal to its table, and valid by the formats' own readers."""

import hashlib
import json
import shutil

import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

import iqa_harness as iqa
from iqa_models import create_model, save_checkpoint
from iqa_results import ROW, ResultStore

TOLD = ("clean", "suite_min", "composed", "closed_loop")


@pytest.fixture(scope="module")
def store(first_store):
    """A run of two models; not to be written to."""
    return ResultStore(first_store)


@pytest.fixture(scope="module")
def incomplete(store, tmp_path_factory):
    """The same without one cell of an attack at the main radius, which is no member of suite_min."""
    folder = tmp_path_factory.mktemp("exports") / "store"
    shutil.copytree(store.root, folder)
    run = iqa.load_run("first", folder)
    manifest = run.store.read_manifest("first")
    gone = next(c for c in manifest.cells if c.model == "other" and c.epsilon == manifest.main_epsilon)
    run.store.delete_cell(gone.key)
    return run.store


def told(store, model):
    """Return the rows of a run's table that are told of a model, defined and undefined ones."""
    table = iqa.load_run("first", store).table
    rows = table[(table.model == model) & table.final & table.row.isin(TOLD)]
    return rows[rows.value.notna()], rows[rows.value.isna()]


def test_evaluation_results_are_the_table(store, tmp_path):
    """Read by Hugging Face's own library: each value with its metric, radius, verdict, suite and images."""
    assert iqa.export_run("first", tmp_path, store, format="hf-eval") == 2
    assert {path.name for path in tmp_path.iterdir()} == {"linear.yaml", "other.yaml"}
    manifest = store.read_manifest("first")
    rows, undefined = told(store, "other")
    assert (len(rows), len(undefined)) == (10, 0)  # clean, and two worst cases at two radii, in two metrics
    index = yaml.safe_load((tmp_path / "other.yaml").read_text())["model-index"]
    name, results = model_index_to_eval_results(index)
    assert name == "other"
    assert eval_results_to_model_index(name, results) == index
    assert [r.metric_value for r in results] == list(rows.value)
    for result, row in zip(results, rows.itertuples(), strict=True):
        assert result.metric_type == {"srocc": "spearmanr", "plcc": "pearsonr"}[row.metric]
        found = result.metric_args
        assert (found["row"], found["epsilon"], found["verdict"]) == (row.row, row.epsilon, row.verdict)
        assert found["suite_sha256"] == manifest.suite_sha256
        assert result.dataset_args["sha256"] == manifest.data.sha256
        assert "pseudo-MOS" in result.dataset_name
    assert results[-1].metric_name == "PLCC, composed, norm inf, radius 2/255"


def test_entries_of_a_benchmark_are_the_table(store, tmp_path):
    """The hub's other layout: an entry a value under a task of its own."""
    iqa.export_run("first", tmp_path, store, format="hf-eval", benchmark="lab/robust-iqa")
    entries = parse_eval_result_entries(yaml.safe_load((tmp_path / "linear.yaml").read_text()))
    rows, _ = told(store, "linear")
    assert [entry.value for entry in entries] == list(rows.value)
    assert {entry.dataset_id for entry in entries} == {"lab/robust-iqa"}
    assert len({entry.task_id for entry in entries}) == len(entries)
    assert [e.task_id for e in entries[:3]] == ["clean_srocc", "clean_plcc", "suite_min_srocc_inf_1_255"]
    assert all(f"verdict {row.verdict}" in e.notes for e, row in zip(entries, rows.itertuples(), strict=True))


def test_what_is_undefined_becomes_no_number(incomplete, tmp_path):
    """It is named with its reason where a person reads it, and is no entry."""
    rows, undefined = told(incomplete, "other")
    assert (len(rows), set(undefined.row)) == (8, {"composed"})
    for place, benchmark in ((tmp_path / "index", None), (tmp_path / "entries", "lab/robust-iqa")):
        iqa.export_run("first", place, incomplete, format="hf-eval", benchmark=benchmark)
        text = (place / "other.yaml").read_text()
        found = yaml.safe_load(text)
        entries = found if benchmark else found["model-index"][0]["results"][0]["metrics"]
        assert [entry["value"] for entry in entries] == list(rows.value)
        comments = [line for line in text.splitlines() if line.startswith("#") and ": undefined, " in line]
        assert len(comments) == len(undefined)
        assert all(reason in text for reason in undefined.undefined)
        assert "nan" not in text.lower().split()


def test_the_page_of_a_pushed_model_has_the_values_too(store, tmp_path):
    """In its front matter, as the hub's library reads it."""
    record = store.read_manifest("first").models[0]
    model = create_model(record.card["name"], **record.card["options"])
    folder = save_checkpoint(model, tmp_path / "attacked", training={})
    iqa.push_model(folder, tmp_path / "shared", run="first", store=store)
    card = ModelCard.load(tmp_path / "shared" / "README.md")
    assert [r.metric_value for r in card.data.eval_results] == list(told(store, record.name)[0].value)
    assert card.data.library_name == "iqa-harness"


def test_rows_are_described_from_their_record(store, tmp_path):
    """Each column with its type and meaning, the file with hash and size; labels are said to be computed."""
    count = iqa.export_run("first", tmp_path, store, format="croissant")
    content = (tmp_path / "rows.parquet").read_bytes()
    found = json.loads((tmp_path / "croissant.json").read_text())
    (file,) = found["distribution"]
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert file["contentSize"] == f"{len(content)} B"
    assert pq.read_metadata(tmp_path / "rows.parquet").num_rows == count
    (records,) = found["recordSet"]
    fields = {field["source"]["extract"]["column"]: field for field in records["field"]}
    assert {name: field["description"] for name, field in fields.items()} == {
        column.name: column.doc for column in ROW.columns
    }
    assert fields["level"]["dataType"] == "sc:Integer"
    assert fields["final"]["dataType"] == "sc:Boolean"
    assert fields["adv_score"]["dataType"] == "sc:Float"
    assert "pseudo-MOS, computed and not given by people" in found["description"]
    assert "NASA" in found["license"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the packages it is made of
def test_croissants_own_reader_finds_the_rows(store, tmp_path):
    """The official validator has nothing to say, and every value comes back, null as null."""
    mlcroissant = pytest.importorskip("mlcroissant", reason="needs pip install mlcroissant")
    iqa.export_run("first", tmp_path, store, format="croissant")
    data = mlcroissant.Dataset(str(tmp_path / "croissant.json"))
    assert not data.metadata.ctx.issues.errors
    assert not data.metadata.ctx.issues.warnings
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    for row, record in zip(rows, data.records("rows"), strict=True):
        read = {name.partition("/")[2]: value for name, value in record.items()}
        assert {k: v.decode() if isinstance(v, bytes) else v for k, v in read.items()} == row


def test_the_command_writes_what_the_function_does(store, tmp_path, cli):
    """And says what it was given wrong: one sentence, exit code 3, nothing written."""
    where = ("--store", str(store.root))
    iqa.export_run("first", tmp_path / "a", store, format="hf-eval")
    code, out, _ = cli("runs", "export", "first", "b", *where, "--format", "hf-eval", "--json")
    assert (code, json.loads(out)["models"]) == (0, 2)
    assert (tmp_path / "a" / "linear.yaml").read_bytes() == (tmp_path / "b" / "linear.yaml").read_bytes()
    code, out, _ = cli("runs", "export", "first", "c", *where, "--format", "croissant")
    assert (code, out) == (0, "c: 440 rows\n")
    (tmp_path / "file").touch()
    for words, said in (
        (("d", "--format", "xml"), "--format xml: no such format; there are croissant, hf-eval"),
        (("d.parquet", "--benchmark", "a/b"), "--benchmark goes with --format hf-eval"),
        (("d", "--format", "hf-eval", "--benchmark", "b"), "a data set of the hub is ORG/NAME"),
        (("file", "--format", "croissant"), "export to file is a file; give a folder"),
    ):
        code, _, err = cli("runs", "export", "first", *words, *where)
        assert (code, said in " ".join(err.split())) == (3, True), err
    assert not (tmp_path / "d").exists()
    with pytest.raises(iqa.IQAError, match="no run 'gone'"):
        iqa.export_run("gone", tmp_path / "d", store, format="hf-eval")
