"""The papers' tables from frames: what they hold, what they mark as missing, what is published."""

from __future__ import annotations

from typing import Any

from iqa_reports import TableView, load_published
from iqa_reports.inputs.frames import FRAMES, KEY, Result
from iqa_reports.papers.seeds_table import seeds_table
from iqa_reports.papers.smart_tables import log_table, smart_tables
from iqa_reports.papers.srm_tables import ablation_table, clean_table, neck_cost_table, worst_case_table
from iqa_reports.report import study_tables

Frames = dict[str, list[Any]]


def only(frames: Frames, **wanted: Any) -> list[Result]:
    """The results whose fields are as wanted."""
    rows = frames["results"]
    return [r for r in rows if all(getattr(r, k) == v for k, v in wanted.items())]


def smart(number: int, results: list[Result], *, published: bool = False) -> TableView:
    """A table of the SMART paper by its number."""
    (found,) = (
        t for t in smart_tables(results, published=published) if t.name.startswith(f"smart-{number}-")
    )
    return found


def texts(table: TableView | None) -> list[list[str]]:
    """What every row shows."""
    assert table is not None
    return [[entry.text for entry in row] for row in table.rows]


def test_every_table_of_the_papers_is_made_from_its_frame(frames: Frames) -> None:
    """SRM 1, 2, 3, 6, 8, 11 and SMART I to VII, each once, each with rows."""
    tables = study_tables(frames)
    assert {t.name for t in tables} == {
        "seeds",
        "srm-1-conditioning",
        "srm-2-scale",
        "srm-3-neck-cost",
        "srm-6-clean",
        "srm-8-worst-case",
        "srm-11-ablation",
        "smart-1-comparison",
        "smart-2-ablation",
        "smart-3-cross-data-set",
        "smart-4-sizes",
        "smart-5-settings",
        "smart-6-log-base",
        "smart-7-losses",
    }
    assert all(table.rows for table in tables)


def test_without_input_there_is_no_table() -> None:
    """No frames, or empty ones, give no table: nothing is invented."""
    assert study_tables({}) == []
    assert study_tables(dict.fromkeys(FRAMES, ())) == []


def test_rows_and_headings_of_every_table_agree(frames: Frames) -> None:
    """Every row has one entry a column, and every mark has its note."""
    for table in study_tables(frames, published=True):
        width = len(table.stub) + sum(len(g.headings) for g in table.groups)
        assert {len(row) for row in table.rows} == {width}, table.name
        noted = {mark for mark, _ in table.notes}
        assert {e.mark for row in table.rows for e in row if e.mark} <= noted, table.name


def test_the_worst_case_table_has_a_column_a_norm_and_marks_what_was_not_run(frames: Frames) -> None:
    """SRM 8: halves of a pair side by side; a suite that was not run on a model is a dash with the reason."""
    table = worst_case_table(only(frames))
    assert table is not None
    assert [g.label for g in table.groups] == [
        "tid2013, 2 norm, ε = 1 (srm-2)",
        "tid2013, inf norm, ε = 4/255 (srm-inf)",
    ]
    rows = {row[0]: row for row in texts(table)}
    assert rows["pvt_v2_b2-baseline"][1:] == ["pvt_v2_b2", "none (baseline)", *["0.200", "0.250"] * 2]
    assert rows["pvt_v2_b2-srm"][2:5] == ["SRM", "0.270", "0.320"]
    assert rows["rank_8"][3] == "—"
    assert "missing: suite srm-2 was not run on it at this radius" in dict(table.notes).values()
    assert any("raises worst-case robust SROCC" in note for _, note in table.notes)


def test_the_ablation_table_stands_against_the_full_model(frames: Frames) -> None:
    """SRM 11: each change with its distance to the model without one, clean and worst case."""
    table = ablation_table(only(frames, backbone="pvt_v2_b2", neck="srm"))
    rows = {row[1]: row for row in texts(table)}
    assert rows["none"][2:] == ["0.910", "0.000", "0.270", "0.000"]
    assert rows["uniform_landmarks"][2:] == ["0.905", "−0.005", "0.220", "−0.050"]
    assert rows["rank_8"][4:] == ["0.240", "−0.030"]


def test_means_over_seeds_show_their_deviation(frames: Frames) -> None:
    """A value over three seeds is mean ± standard deviation, said in a note; no interval."""
    table = seeds_table(only(frames))
    assert table is not None
    entry = table.rows[0][1]
    assert (entry.text, entry.spread, entry.interval) == ("0.905", 0.004, "")
    assert dict(table.notes)[entry.mark] == "mean ± standard deviation over 3 training seeds"


def test_two_values_for_one_place_are_not_averaged(frames: Frames) -> None:
    """A model evaluated twice with two outcomes is a dash that says so, not one of them."""
    rows = only(frames, model="smart-base", data="spaq")
    other = [r._replace(suite="demo", value=0.5) for r in rows]
    table = smart(1, [*rows, *other])
    assert texts(table)[0][3:] == ["—", "—"]
    assert "2 values for one place (of evaluate, demo); pick one" in dict(table.notes).values()


def test_two_splits_of_a_set_are_two_places(frames: Frames) -> None:
    """A model evaluated on two splits has a value on each, and only the test split is called by the set."""
    rows = only(frames, model="smart-base", data="spaq")
    test = [r._replace(split="test") for r in rows]
    val = [r._replace(split="val", value=0.5) for r in rows]
    for make in (lambda rows: smart(1, rows), clean_table):
        alone, both = make(test), make([*test, *val])
        assert alone is not None
        assert both is not None
        assert [group.label for group in both.groups][-2:] == ["spaq", "spaq (val)"]
        assert texts(both)[0] == [*texts(alone)[0], "0.500", "0.500"]


def test_the_neck_is_costed_beside_the_whole_model(frames: Frames) -> None:
    """SRM 3: parameters in millions, multiply-adds in billions; what was not measured is a dash."""
    costs = frames["costs"]
    assert texts(neck_cost_table(costs))[0] == [
        "srm",
        "384, batch 1",
        "0.300",
        "0.400",
        "28.00",
        "4.00",
        "12.50",
        "64.0",
        "bf16, cpu",
    ]
    counted = [c for c in costs if c.seconds is None]
    assert texts(neck_cost_table(counted))[0][6:] == ["—", "—", ""]


def test_published_values_stand_apart(frames: Frames) -> None:
    """They are named as published with their source, only on the data they are of, and are never the best."""
    plain, shown = (smart(1, only(frames), published=p) for p in (False, True))
    assert "published" not in str(plain)
    theirs = [row for row in shown.rows if row[2].text.startswith("published")]
    assert len(theirs) == 13
    assert not any(entry.best for row in theirs for entry in row)
    places = {g.label: i for i, g in enumerate(shown.groups)}
    for row in theirs:
        assert row[3 + 2 * places["koniq10k"]].kind == "number"
        assert row[3 + 2 * places["tid2013"]].text == "—"
    assert any(note.startswith("published: SMART-IQA") and "optimistic" in note for _, note in shown.notes)
    assert any("its PLCC is of raw scores, ours is behind a logistic" in note for _, note in shown.notes)


def test_published_values_never_make_a_table_alone() -> None:
    """Without a value of ours there is no table, published or not."""
    assert list(smart_tables([], published=True)) == []


def test_the_fusions_come_from_the_least_to_the_full_model(frames: Frames) -> None:
    """SMART II: backbone only, AFA, attention; checked columns say which part is there."""
    table = smart(2, only(frames, data="koniq10k"))
    assert [row[:3] for row in texts(table)] == [
        ["smart-tiny", "no", "no"],
        ["smart-small", "yes", "no"],
        ["smart-base", "yes", "yes"],
    ]


def test_sizes_rise_and_are_in_millions(frames: Frames) -> None:
    """SMART IV: rows by rising parameters, the published ones after ours."""
    table = smart(4, only(frames, data="koniq10k"), published=True)
    assert [row[2] for row in texts(table)] == ["28.98", "50.64", "89.11", "25", "28", "50", "88"]


def test_the_log_marks_the_chosen_epoch_and_undefined_values(frames: Frames) -> None:
    """SMART VI: an epoch a row, a dash where a correlation was undefined, the chosen epoch named."""
    rows = texts(log_table(frames["training"], "base"))
    assert rows[0] == ["1", "", "12.0000", "—"]
    assert rows[1] == ["2", "chosen", "6.0000", "0.8200"]


def test_a_log_of_another_model_is_no_table(frames: Frames) -> None:
    """A model without a log has none."""
    assert log_table(frames["training"], "tiny") is None


def test_frames_say_what_they_are() -> None:
    """Every schema carries its name, and every column its meaning."""
    for name, schema in FRAMES.items():
        assert schema.arrow.metadata[KEY].decode() == name
        assert all(field.metadata[b"doc"] for field in schema.arrow)


def test_published_numbers_are_correlations_where_they_claim_to_be() -> None:
    """Every published SROCC and PLCC lies within (0, 1); every table and claim has a paper with a source."""
    published = load_published()
    assert {claim.paper for claim in published.claims} <= set(published.papers)
    for table in published.tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert published.papers[table.paper].source
        for record in table.records():
            for name in ("srocc", "plcc", "train_srocc", "test_srocc", "test_plcc"):
                if name in record:
                    assert 0 < float(record[name]) < 1
    best = max(published.table("smart-iqa", "log").records(), key=lambda r: float(r["test_srocc"]))
    assert (best["epoch"], best["test_srocc"]) == (8, 0.9378)
