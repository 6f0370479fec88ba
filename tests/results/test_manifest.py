"""Manifests: equal after a round trip, and damage is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from iqa_results import (
    BASELINE,
    BadManifest,
    BadPart,
    DataRecord,
    ModelRecord,
    ResultStore,
    RunManifest,
    Selection,
    UnknownRun,
    load_baseline,
    manifest_bytes,
    save_baseline,
)
from iqa_results.manifest_file import parse_manifest

FIRST_EDITION = Path(__file__).with_name("first_edition")

CHECK = {"value": 0.0, "threshold": 1e-6, "passed": True, "detail": "the same twice"}


def card(content: dict[str, Any], **fields: Any) -> None:
    """Change the card of the first model."""
    content["models"][0]["card"].update(fields)


def check(content: dict[str, Any], value: Any) -> None:
    """Change a check of the first model."""
    content["models"][0]["checks"]["repeatable"] = value


Make = Callable[..., RunManifest]


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    """An empty store."""
    return ResultStore(tmp_path)


def test_a_manifest_is_equal_after_a_round_trip(store: ResultStore, manifest: Make) -> None:
    """What is read is what was written, tuples, None and all."""
    made = manifest()
    store.write_manifest(made)
    assert store.read_manifest("first") == made


def test_a_manifest_is_replaced_whole(store: ResultStore, manifest: Make) -> None:
    """Writing a run's manifest again leaves the new one and nothing else."""
    store.write_manifest(manifest(status="running", ended=None))
    path = store.write_manifest(manifest())
    assert store.read_manifest("first").status == "complete"
    assert list(path.parent.iterdir()) == [path]


def test_runs_are_listed_by_their_manifest(store: ResultStore, manifest: Make) -> None:
    """A folder without a manifest is no run; names come sorted."""
    for run in ("second", "first"):
        store.write_manifest(manifest(run=run))
    (store.root / "runs" / "empty").mkdir()
    assert store.list_runs() == ["first", "second"]


def test_an_unknown_run_names_the_known_ones(store: ResultStore, manifest: Make) -> None:
    """The message for a run that is not there says which are."""
    with pytest.raises(UnknownRun, match="runs there: none"):
        store.read_manifest("frist")
    store.write_manifest(manifest())
    with pytest.raises(UnknownRun, match=r"no run 'frist' .*runs there: first"):
        store.read_manifest("frist")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda m: m.pop("seed"), "seed: "),
        (lambda m: m.update(colour="red"), "colour: "),
        (lambda m: m.update(format=2), "format: "),
        (lambda m: m.update(status="finished"), "status: "),
        (lambda m: m["data"].update(label="opinion"), r"data\.label: "),
        (lambda m: m["cells"][0].update(count="many"), r"cells\.0\.count: "),
        (lambda m: m["cells"][0].update(count=-1), r"cells\.0\.count: "),
        (lambda m: m["cells"][0].update(first=-8), r"cells\.0\.first: "),
        (lambda m: m["cells"][0].update(backwards=10**400), r"cells\.0\.backwards: "),
        (lambda m: card(m, x=[{"y": -(10**400)}]), r"models\.0\.card\.x\.0\.y: "),
        (lambda m: card(m, score_range=[0, "/"]), r"models\.0\.card: .*score_range\.1: "),
        (lambda m: card(m, score_range=[1, 1]), r"models\.0\.card: .*score_range: "),
        (lambda m: card(m, options=[]), r"models\.0\.card: .*options: "),
        (lambda m: card(m, is_stochastic="no"), r"models\.0\.card: .*is_stochastic: "),
        (lambda m: card(m, has_gradient=1), r"models\.0\.card: .*has_gradient: "),
        (lambda m: check(m, 1), r"models\.0\.checks\.repeatable: "),
        (lambda m: check(m, {**CHECK, "threshold": "1"}), r"models\.0\.checks\.repeatable: .*threshold: "),
        (lambda m: check(m, {**CHECK, "passed": None}), r"models\.0\.checks\.repeatable: .*passed: "),
        (lambda m: m["data"]["card"].update(mos_range=[1, [2]]), r"data\.card: .*mos_range\.1: "),
        (lambda m: m["data"]["card"].update(notes=[1]), r"data\.card: .*notes\.0: "),
        (lambda m: m["cells"][0].update(seconds=1e308), r"cells\.0\.seconds: "),
        (lambda m: m.update(seed=-1), "seed: "),
    ],
)
def test_a_damaged_manifest_names_the_key(
    store: ResultStore, manifest: Make, damage: Callable[[dict[str, Any]], object], named: str
) -> None:
    """A key that is missing, unknown or wrong is named with its place in the file."""
    path = store.write_manifest(manifest())
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(BadManifest, match=f"manifest.json: {named}"):
        store.read_manifest("first")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1'])
def test_a_manifest_that_is_no_json_record_is_refused(store: ResultStore, manifest: Make, text: str) -> None:
    """A truncated or foreign file is damage, with the file named."""
    store.write_manifest(manifest()).write_text(text)
    with pytest.raises(BadManifest, match=r"manifest\.json: the file: "):
        store.read_manifest("first")


def test_a_number_json_cannot_hold_is_refused_and_the_old_manifest_stays(
    store: ResultStore, manifest: Make
) -> None:
    """NaN in a check is named as the mistake it is, not written as something no reader takes."""
    store.write_manifest(manifest())
    model = ModelRecord(name="m", sha256="a", card={"x": float("nan")}, checkpoint=None, checks={})
    with pytest.raises(BadManifest, match=r"manifest.json: .*JSON"):
        store.write_manifest(manifest(models=(model,)))
    assert store.read_manifest("first") == manifest()


def test_a_record_cannot_be_changed_after_it_was_made(manifest: Make) -> None:
    """A manifest is a record: a new state is a new record."""
    with pytest.raises(ValidationError, match="frozen"):
        manifest().seed = 1


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(main_epsilon=8 / 255),
        lambda m: m.update(seed=1),
        lambda m: m.update(suite_min=["pgd/mse"]),
        lambda m: m["models"][0].update(checks={"gradient": CHECK}),
        lambda m: m["cells"][0].update(bytes=1),
        lambda m: m.update(sha256="0" * 64),
    ],
)
def test_a_manifest_edited_by_hand_is_refused(
    store: ResultStore, manifest: Make, change: Callable[[dict[str, Any]], object]
) -> None:
    """A radius, seed, member, check or cell that somebody wrote in makes its checksum wrong."""
    path = store.write_manifest(manifest())
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(BadManifest, match=r"manifest\.json: was changed after it was written"):
        store.read_manifest("first")


def test_another_layout_of_the_same_manifest_is_read(store: ResultStore, manifest: Make) -> None:
    """The checksum is of the content: other blanks, order of keys or escapes change nothing."""
    made = manifest(notes=("naïve",))
    path = store.write_manifest(made)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(content.items())), indent=7, ensure_ascii=False))
    assert store.read_manifest("first") == made


@pytest.mark.parametrize("place", ["model", "note", "card"])
def test_text_that_is_not_utf8_is_refused_on_write(store: ResultStore, manifest: Make, place: str) -> None:
    """A label with half a surrogate would make a manifest that nothing can read, `runs list` neither."""
    store.write_manifest(manifest())
    word = b"caf\xe9".decode(errors="surrogateescape")
    record = manifest().models[0]
    changes: dict[str, Any] = {
        "model": {"models": (record.model_copy(update={"name": word}),)},
        "note": {"notes": (word,)},
        "card": {"models": (record.model_copy(update={"card": {"name": [word]}}),)},
    }[place]
    with pytest.raises(BadManifest, match=r"manifest\.json: no UTF-8 text: .*caf.udce9"):
        store.write_manifest(manifest().model_copy(update=changes))
    assert store.read_manifest("first") == manifest()


def test_a_manifest_says_in_words_which_images_were_chosen(store: ResultStore, manifest: Make) -> None:
    """Typed in the file, read back equal, and worded from that."""
    data = manifest().data
    assert data.selection is None
    for chosen, images, words in (
        (Selection(limit=3), 3, "the first 3 images of the 20 that the suite names"),
        (Selection(images=("b, c", "a")), 2, "2 chosen images (b, c, a) of the 20 that the suite names"),
    ):
        some = data.model_copy(update={"chosen": chosen, "chosen_from": 20, "images": images})
        store.write_manifest(manifest(data=some))
        found = store.read_manifest("first").data
        assert (found, found.selection) == (some, words)


@pytest.mark.parametrize(
    ("words", "chosen", "of"),
    [
        (None, None, None),
        ("the first 3 images of the 20 that the suite names", Selection(limit=3), 20),
        ("3 chosen images (a, b, c) of the 20 that the suite names", Selection(None, ("a", "b", "c")), 20),
        ("2 chosen images (a, b\nc, d) of the 9 that the suite names", Selection(2, ("a", "b\nc", "d")), 9),
    ],
)
def test_words_of_the_first_edition_are_read(
    manifest: Make, words: str | None, chosen: Selection | None, of: int | None
) -> None:
    """It wrote the choice of images in words alone: they become the record, which gives the same words."""
    count = 0 if chosen is None else chosen.limit or len(chosen.images)
    fields = manifest().data.model_dump(exclude={"chosen", "chosen_from"})
    found = DataRecord.model_validate({**fields, "images": count, "selection": words})
    assert (found.chosen, found.chosen_from, found.selection) == (chosen, of, words)


def test_a_choice_worded_otherwise_is_refused(manifest: Make) -> None:
    """No edition wrote such words."""
    with pytest.raises(ValidationError, match="worded as no edition"):
        DataRecord.model_validate({**manifest().data.model_dump(), "selection": "some of them"})


def test_a_manifest_of_the_first_edition_is_read() -> None:
    """It has no checksum and its choice of images in words; the file is one that edition wrote."""
    found = ResultStore(FIRST_EDITION / "store").read_manifest("first")
    assert found.data.chosen == Selection(images=("image-0", "image-1"))
    assert parse_manifest(manifest_bytes(found)) == found


def test_a_baseline_of_the_first_edition_is_read() -> None:
    """It has no hash of its scores, and says so."""
    record, scores = load_baseline(FIRST_EDITION / "baseline")
    assert (record.name, record.scores_sha256, scores.num_rows) == ("b", None, 2)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[str, float], Path]:
    """Return a function that saves a baseline with one score and returns its folder."""
    record, scores = load_baseline(FIRST_EDITION / "baseline")

    def save(name: str, score: float) -> Path:
        rows = [BASELINE.rows(scores)[0]._replace(score=score)]
        save_baseline(tmp_path / name, record.model_copy(update={"name": name}), rows)
        return tmp_path / name

    return save


def test_the_two_files_of_a_baseline_are_tied(saved: Callable[[str, float], Path]) -> None:
    """Scores of another baseline under a record, as a kill between the two or a copy leaves them."""
    one, other = saved("one", 0.5), saved("other", 0.6)
    record, _ = load_baseline(one)
    save_baseline(one, record.model_copy(update={"seed": 7}), None)  # as a calibration does
    assert load_baseline(one)[0].seed == 7
    (one / "scores.parquet").write_bytes((other / "scores.parquet").read_bytes())
    with pytest.raises(BadPart, match=r"scores\.parquet: not the scores that .*baseline\.json was"):
        load_baseline(one)
