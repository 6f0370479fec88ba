"""The public sets, a file each: what the folder holds that their authors ship.

A new one is a module here with a `Layout` named `LAYOUT`; another package offers one under the entry point
group `iqa_harness.data`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Final

from iqa_harness.data.public.layout import Layout


def _layouts() -> dict[str, Layout]:
    modules = (
        importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)
    )
    return {module.LAYOUT.name: module.LAYOUT for module in modules}


LAYOUTS: Final = _layouts()
