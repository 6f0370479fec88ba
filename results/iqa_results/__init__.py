"""What was measured: documented columns, Parquet parts, manifests."""

from iqa_results.errors import BadManifest, BadPart, ResultsError, UnknownRun
from iqa_results.manifest import CellRecord, DataRecord, ModelRecord, Provenance, RunManifest
from iqa_results.schema import (
    DIFFERENCE_COLUMNS,
    DIFFERENCE_SCHEMA,
    FIT_COLUMNS,
    FIT_SCHEMA,
    FLAG_COLUMNS,
    FLAG_SCHEMA,
    INTERVAL_COLUMNS,
    INTERVAL_SCHEMA,
    MEASURE_COLUMNS,
    MEASURE_SCHEMA,
    ROW_COLUMNS,
    ROW_SCHEMA,
    SCHEMA_VERSION,
    TABLE_COLUMNS,
    TABLE_SCHEMA,
    Column,
    describe,
)
from iqa_results.store import ResultStore

__all__ = [
    "DIFFERENCE_COLUMNS",
    "DIFFERENCE_SCHEMA",
    "FIT_COLUMNS",
    "FIT_SCHEMA",
    "FLAG_COLUMNS",
    "FLAG_SCHEMA",
    "INTERVAL_COLUMNS",
    "INTERVAL_SCHEMA",
    "MEASURE_COLUMNS",
    "MEASURE_SCHEMA",
    "ROW_COLUMNS",
    "ROW_SCHEMA",
    "SCHEMA_VERSION",
    "TABLE_COLUMNS",
    "TABLE_SCHEMA",
    "BadManifest",
    "BadPart",
    "CellRecord",
    "Column",
    "DataRecord",
    "ModelRecord",
    "Provenance",
    "ResultStore",
    "ResultsError",
    "RunManifest",
    "UnknownRun",
    "describe",
]
