"""The rows of a run described in Croissant 1.0, a JSON-LD vocabulary for data sets that catalogues read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from iqa_harness.stores.transfer import export_run
from iqa_reports.text import setting
from iqa_results import ROW, SCHEMA_VERSION, Column, ResultStore, RunManifest, write_whole

_TERMS = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet",
    "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet",
    "references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField",
    "transform",
)  # fmt: skip
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
}
"""The vocabulary's own, which every file repeats."""
_TYPES = {
    pa.string(): "sc:Text",
    pa.float64(): "sc:Float",
    pa.int64(): "sc:Integer",
    pa.bool_(): "sc:Boolean",
}


def export_croissant(store: ResultStore, run: str, folder: Path) -> int:
    """Write the rows of a run as `rows.parquet` and what they are as `croissant.json`; return their number.

    Raises:
        RunError: no cell of the run is stored.
        BadPart: a part is damaged.
    """
    count = export_run(store, run, folder / "rows.parquet")
    found = croissant(store.read_manifest(run), folder / "rows.parquet")
    write_whole(folder / "croissant.json", (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode())
    return count


def croissant(manifest: RunManifest, rows: Path) -> dict[str, Any]:
    """Return the description of a run's rows; names, types and meaning of the columns are the record's.

    Args:
        manifest: of the run.
        rows: the Parquet file of all its rows, which is to lie beside the description.
    """
    data, models = manifest.data, ", ".join(model.name for model in manifest.models)
    card = data.card
    description = (
        f"Scores of image quality models on attacked images, a row an image, attack, objective and number of "
        f"steps: run {manifest.run} of iqa-harness, {manifest.status}. Suite {manifest.suite}, sha256 "
        f"{manifest.suite_sha256}. Models: {models}. {setting(manifest)} Data sha256 {data.sha256}; "
        "the rows hold no pixels."
    )
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": manifest.run,
        "description": description,
        "license": f"Scores: to be stated by who made the run. Images and labels: {card.get('source', '')}",
        "citeAs": _citation(manifest),
        "datePublished": manifest.ended or manifest.started,
        "version": f"{SCHEMA_VERSION}.0.0",
        "keywords": ["image quality assessment", "adversarial robustness", data.label],
        "rai:dataLimitations": [*_texts(card.get("notes")), *manifest.notes],
        "distribution": [_file(rows)],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "rows",
                "name": "rows",
                "description": (ROW.record.__doc__ or "").strip(),
                "field": [_field(column, rows.name) for column in ROW.columns],
            }
        ],
    }


def _file(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": path.name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": "application/x-parquet",
        "sha256": digest.hexdigest(),
    }


def _field(column: Column, file: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"rows/{column.name}",
        "name": f"rows/{column.name}",
        "description": column.doc,
        "dataType": _TYPES[column.type],
        "source": {"fileObject": {"@id": file}, "extract": {"column": column.name}},
    }


def _texts(value: object) -> list[str]:
    return [str(text) for text in value] if isinstance(value, list) else []


def _citation(manifest: RunManifest) -> str:
    version = manifest.provenance.packages.get("iqa-harness", "")
    return (
        "@software{iqa_harness, title = {iqa-harness}, author = {{The iqa-harness authors}}, "
        f"version = {{{version}}}, note = {{Suite {manifest.suite}, sha256 {manifest.suite_sha256}}}}}"
    )
