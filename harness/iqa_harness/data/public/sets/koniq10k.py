"""KonIQ-10k: photographs from the web, with the authors' own splits."""

from __future__ import annotations

from iqa_harness.data.public.label_files import read_csv
from iqa_harness.data.public.layout import Label, Layout, Reading

_KONIQ_SETS = {"training": "train", "validation": "val", "test": "test"}


def read(reading: Reading) -> None:
    """Read labels and the authors' own splits."""
    rows = read_csv(
        reading.file("koniq10k_scores_and_distributions.csv"), ("image_name", reading.label.column)
    )
    folder = reading.images_in("1024x768", "512x384")
    splits: dict[str, str] = {}
    if reading.options.get("split", "official") == "official":
        lists = reading.file("koniq10k_distributions_sets.csv")
        for where, cells in read_csv(lists, ("image_name", "set")):
            if cells["set"] not in _KONIQ_SETS:
                known = ", ".join(_KONIQ_SETS)
                reading.listing.find(
                    f"{lists.name} {where}", "split", f"set {cells['set']!r} is none of {known}"
                )
            if cells["image_name"] in splits:
                reading.listing.find(
                    f"{lists.name} {where}", "duplicate", f"{cells['image_name']} is listed twice"
                )
            splits[cells["image_name"]] = _KONIQ_SETS.get(cells["set"], "test")
        labelled = {cells["image_name"] for _, cells in rows}
        for name in sorted(set(splits) - labelled):
            reading.listing.find(lists.name, "unknown", f"{name} has no row in the label file")
    for where, cells in rows:
        name = cells["image_name"]
        if splits and name not in splits:
            reading.listing.find(where, "split", f"{name} has no row in koniq10k_distributions_sets.csv")
        reading.add(where, name, f"{folder}/{name}", cells[reading.label.column], split=splits.get(name, ""))


LAYOUT = Layout(
    name="koniq10k",
    title="KonIQ-10k",
    images=10_073,
    labels=(Label("MOS_zscore", 0, 100), Label("MOS", 1, 5)),
    url="https://database.mmsp-kn.de/koniq-10k-database.html",
    holds=(
        "1024x768/ (or 512x384/)                   the images",
        "koniq10k_scores_and_distributions.csv     labels",
        "koniq10k_distributions_sets.csv           training, validation, test; not needed with ?split=random",
    ),
    terms="stated on the page above",
    splits=("official", "random", "all"),
    read=read,
    advice="The sets file is offered at https://github.com/subpic/koniq in metadata/.",
)
