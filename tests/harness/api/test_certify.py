"""`certify`: floors of models and of runs, in Python and on the command line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import iqa_harness as iqa
from helpers import tiny
from iqa_harness.errors import RunError
from iqa_reports import html_report, markdown_report


@pytest.fixture(scope="module")
def attacked(tmp_path_factory, images):
    """Return a run on 12 small images of a linear model and one without a certificate, with its store."""
    folder = tmp_path_factory.mktemp("certified")
    rows = ["path,mos,split"]
    for place, record in enumerate(images.records):
        Image.fromarray(images.read(place)).save(folder / f"{record.image_id}.png")
        rows.append(f"{record.image_id}.png,{record.mos},{record.split}")
    (folder / "labels.csv").write_text("\n".join(rows))
    suite, data = folder / "suite.toml", f"{folder / 'labels.csv'}?mos_range=1,5"
    suite.write_text(tiny.SUITE)
    models, store = ["linear", "filters=cheat_none"], folder / "store"
    return iqa.attack(suite, models, run="both", data=data, store=store, tune="off", progress=False), store


def test_floors_of_a_run_stand_below_all_that_its_attacks_found(attacked):
    """In one row of equal norm and radius, certified <= composed <= suite_min; composed comes near it."""
    run, store = attacked
    found = iqa.certify_run("both", store=store, progress=False)
    assert found.contradicted == ()
    assert {row.model for row in found.rows} == {"linear", "filters"}
    rows = {(row.model, row.epsilon, row.metric): row for row in found.rows}
    main = run.manifest.main_epsilon
    worst = run.table[run.table["final"] & run.table["row"].isin(["composed", "suite_min"])]
    certified = 0
    for each in worst.itertuples():
        floor = rows[each.model, each.epsilon, each.metric]
        if each.model == "filters":
            assert floor.value is None
            assert floor.undefined.startswith("cheat_none: no bound is known")
        else:
            assert floor.method == "closed form"
            assert floor.confidence == 1
            assert floor.value <= each.value
            certified += 1
        if (each.model, each.epsilon, each.row, each.metric) == ("linear", main, "composed", "srocc"):
            assert each.value - floor.value < 0.1
    assert certified == 8
    report = run.refresh()._leaderboard()
    text = markdown_report(report)
    assert "## Both sides of the worst case" in text
    assert 'id="bracket"' in html_report(report, {})
    assert "Both sides of the worst case in SROCC, norm inf" in text
    assert "no certificate" in text
    # The intervals hold every score that any attack met.
    ends = run.intervals.merge(found.intervals, on=["model", "epsilon", "image_id"])
    assert len(ends) == 24
    assert (ends["low"] <= ends["s_min"]).all()
    assert (ends["s_max"] <= ends["high"]).all()


def test_a_run_s_floors_are_those_of_its_models_and_of_no_other(attacked):
    run, store = attacked
    other = {"linear": "linear?seed=1", "filters": "cheat_none"}
    with pytest.raises(RunError, match="another one than run 'both' was of"):
        iqa.certify_run("both", store=store, models=other, progress=False)
    with pytest.raises(RunError, match="has no model 'cubic'"):
        iqa.certify_run("both", store=store, models={"cubic": "linear"}, progress=False)
    assert run.models == ["linear", "filters"]


def test_a_run_is_certified_on_its_own_images_only(attacked, images):
    """The same names with other pixels would be another set's floors under this run's values."""
    _, store = attacked
    pixels = [255 - images.read(place) for place in range(len(images))]
    others = iqa.ArrayImageSet.of(pixels, [record.mos for record in images.records], mos_range=(1, 5))
    with pytest.raises(RunError, match=r"was attacked, \w+ is here"):
        iqa.certify_run("both", store=store, data=others, progress=False)


def test_an_attack_beyond_a_certificate_is_a_contradiction(attacked, cli):
    """Were a score of the rows outside its interval, the command would say so and exit with 1."""
    run, store = attacked
    code, out, err = cli("certify", "--run", "both", "--store", str(store), "--quiet")
    assert code == 0
    assert "contradicted" not in err
    assert "certified" in out
    path = run.store.table_path("both", "intervals")
    kept = path.read_bytes()
    table = run.store.read_table("both", "intervals").to_pandas()
    table.loc[(table["model"] == "linear"), "s_max"] += 1
    run.store.write_table("both", table.to_dict("records"), "intervals")
    code, out, err = cli("certify", "--run", "both", "--store", str(store), "--quiet")
    path.write_bytes(kept)
    assert code == 1
    assert "contradicted: linear, srocc" in err
    assert "CONTRADICTED by attacks on 12 images" in " ".join(out.split())


def test_a_floor_under_fewer_images_is_not_shown_under_more(attacked):
    """A run that was certified before it had all its images: its reports have no floor until it is again."""
    run, store = attacked
    rows = [row for row in iqa.certify_run("both", store=store, progress=False).rows if row.value is not None]
    path = run.store.table_path("both", "certificates")
    for images, shown in ((11, False), (12, True)):
        run.store.write_table("both", [row._replace(images=images) for row in rows], "certificates")
        assert ("Both sides of the worst case" in markdown_report(run.refresh()._leaderboard())) == shown
        assert iqa.verify("both", store=store, sample=0, progress=False).findings == []
    path.unlink()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ""),
        ({"value": 0.99}, "value: 0.99 is certified, an attack of the run found"),
        ({"clean": 0.99}, "clean: 0.99 is stored, the rows give"),
        ({"model_sha256": "0" * 64}, "is of no model of the run"),
    ],
)
def test_a_floor_is_held_against_the_run_it_is_stored_with(attacked, changes, says):
    """Above what attacks found, of other scores or another model: told. All else of it is not verified."""
    run, store = attacked
    found = iqa.certify_run("both", store=store, progress=False)
    rows = [row._replace(**changes) if row.value is not None else row for row in found.rows]
    run.store.write_table("both", rows, "certificates")
    seen = iqa.verify("both", store=store, sample=0, progress=False)
    run.store.table_path("both", "certificates").unlink()
    assert len(seen.findings) == (4 if says else 0)
    assert all(
        f.detail.startswith(says) and f.where.startswith("certificates, linear") for f in seen.findings
    )
    assert [words.partition(":")[0] for words in seen.verified.not_verified] == ["linear, certified"]


def test_models_of_your_own_are_certified_without_a_run(images):
    """A network, a smoothed model, one without a certificate; a floor is below the clean value."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)
    )
    models = {
        "net": iqa.wrap(net, score_range=(0, 1)),
        "smoothed": iqa.defend(iqa.wrap(net, score_range=(0, 1)), "smooth_median:0.25,16"),
        "linear": "linear",
        "filters": "cheat_none",
    }
    found = iqa.certify(
        models, images, norm="2", epsilon=0.05, limit=6, draws=100, confidence=0.9, progress=False
    )
    table = found.table.set_index(["model", "metric"])
    assert list(table["images"]) == [6] * 6 + [0] * 2
    assert list(table["method"].unique()) == ["layer bounds", "median smoothing", "closed form", ""]
    certified = table.dropna(subset=["value"])
    assert (certified["value"] <= certified["clean"].fillna(1) + 1e-9).all()
    assert (certified["value"] >= -1).all()
    assert table.loc[("smoothed", "srocc"), "confidence"] == 0.9
    assert len(found.intervals) == 18
    assert (found.intervals["low"] < found.intervals["high"]).all()
    assert "no certificate" in repr(found)
    assert "<table" in found._repr_html_()


def test_on_the_command_line(cli):
    code, out, _ = cli("certify", "-m", "linear", "-d", "smoke", "--eps", "1/255", "--limit", "8", "--json")
    found = json.loads(out)
    assert code == 0
    assert [row["metric"] for row in found["certificates"]] == ["srocc", "plcc"]
    assert len(found["intervals"]) == 8
    assert np.isfinite(found["certificates"][0]["value"])
    code, _, err = cli("certify")
    assert code == 2
    assert "name a model" in err
    code, _, err = cli("certify", "-m", "linear", "-d", "smoke", "--eps", "3")
    assert code == 3
    assert "pixels lie in [0, 1]" in err
