"""The benchmark as data: suites in TOML, their schema and loader."""

from iqa_suites.attack_settings import (
    AnyAttackSettings,
    EnsembleSettings,
    OwnAttackSettings,
    TransferSettings,
    list_kinds,
    settings_class,
)
from iqa_suites.errors import BadSuite, SuiteError, UnknownSuite
from iqa_suites.loader import LoadedSuite, list_suites, load_suite, parse_suite
from iqa_suites.schema import EMBEDDED, AttackSettings, DataSettings, Suite

__all__ = [
    "EMBEDDED",
    "AnyAttackSettings",
    "AttackSettings",
    "BadSuite",
    "DataSettings",
    "EnsembleSettings",
    "LoadedSuite",
    "OwnAttackSettings",
    "Suite",
    "SuiteError",
    "TransferSettings",
    "UnknownSuite",
    "list_kinds",
    "list_suites",
    "load_suite",
    "parse_suite",
    "settings_class",
]
