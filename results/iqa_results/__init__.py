"""What was measured: documented columns, Parquet parts, manifests."""

from iqa_results.errors import BadManifest, BadPart, ResultsError, UnknownRun
from iqa_results.examples import EXAMPLE_COLUMNS, EXAMPLE_SCHEMA
from iqa_results.files import RemotePath
from iqa_results.manifest import (
    CellRecord,
    DataRecord,
    ModelRecord,
    PluginRecord,
    Provenance,
    RunManifest,
    WorkerRecord,
)
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
    "EXAMPLE_COLUMNS",
    "EXAMPLE_SCHEMA",
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
    "PluginRecord",
    "Provenance",
    "RemotePath",
    "ResultStore",
    "ResultsError",
    "RunManifest",
    "UnknownRun",
    "WorkerRecord",
    "describe",
]
