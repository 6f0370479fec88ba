"""The columns of stored adversarial examples: attacked images, bit for bit, in little room."""

from __future__ import annotations

import pyarrow as pa

from iqa_results.schema import Column

_S, _F, _I = pa.string(), pa.float64(), pa.int64()

EXAMPLE_COLUMNS: tuple[Column, ...] = (
    Column("cell", _S, False, "key of the cell whose attack found the example"),
    Column("image_id", _S, False, "id of the image in its set"),
    Column("image", _I, False, "place of the image in its cell, from 0"),
    Column("height", _I, False, "pixels from top to bottom"),
    Column("width", _I, False, "pixels from left to right"),
    Column("score", _F, False, "score the attack saw for it"),
    Column("restart", _I, False, "restart that found it"),
    Column("step", _I, False, "iterate of that restart, 0 for its start"),
    Column(
        "uses",
        pa.list_(
            pa.struct(
                [("place", _I), ("objective", _S), ("steps", _I), ("loss", _F)],
            )
        ),
        False,
        "for what it was chosen: place in the attack's own list, objective, number of steps, loss",
    ),
    Column("epsilon", _F, False, "radius around the clean image that `nearest` speaks of"),
    Column(
        "nearest",
        pa.binary(),
        False,
        "int8 (3, height, width): what the value is nearest to, 0 the clean image (uint8 / 255 in float32), "
        "1 or -1 clean + epsilon or clean - epsilon, clipped to [0, 1]",
    ),
    Column(
        "pixels",
        pa.binary(),
        False,
        "float32 (3, height, width) in [0, 1], each value's bits XOR those of what it is nearest to: first "
        "all lowest bytes, then the next, up to the highest",
    ),
)

EXAMPLE_SCHEMA = pa.schema(
    [pa.field(c.name, c.type, nullable=c.nullable, metadata={"doc": c.doc}) for c in EXAMPLE_COLUMNS],
    metadata={"schema_version": "1"},
)
"""One row a distinct example; the file's metadata `result` holds clean scores and costs as JSON."""
