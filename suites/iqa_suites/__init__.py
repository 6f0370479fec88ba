"""The benchmark as data: suites in TOML, their schema and loader."""

from iqa_suites.attack_settings import (
    APGDSettings,
    AttackSettings,
    FGSMSettings,
    MIFGSMSettings,
    NoiseSettings,
    OwnAttackSettings,
    PGDSettings,
    SquareSettings,
    TorchattacksSettings,
    TransferSettings,
    UniversalSettings,
)
from iqa_suites.errors import BadSuite, SuiteError, UnknownSuite
from iqa_suites.loader import LoadedSuite, list_suites, load_suite, parse_suite
from iqa_suites.schema import EMBEDDED, DataSettings, Suite

__all__ = [
    "EMBEDDED",
    "APGDSettings",
    "AttackSettings",
    "BadSuite",
    "DataSettings",
    "FGSMSettings",
    "LoadedSuite",
    "MIFGSMSettings",
    "NoiseSettings",
    "OwnAttackSettings",
    "PGDSettings",
    "SquareSettings",
    "Suite",
    "SuiteError",
    "TorchattacksSettings",
    "TransferSettings",
    "UniversalSettings",
    "UnknownSuite",
    "list_suites",
    "load_suite",
    "parse_suite",
]
