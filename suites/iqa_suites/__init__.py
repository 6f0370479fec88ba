"""The benchmark as data: suites in TOML, their schema and loader."""

from iqa_suites.errors import BadSuite, SuiteError, UnknownSuite
from iqa_suites.loader import LoadedSuite, list_suites, load_suite, parse_suite
from iqa_suites.schema import AttackSettings, DataSettings, FGSMSettings, PGDSettings, Suite

__all__ = [
    "AttackSettings",
    "BadSuite",
    "DataSettings",
    "FGSMSettings",
    "LoadedSuite",
    "PGDSettings",
    "Suite",
    "SuiteError",
    "UnknownSuite",
    "list_suites",
    "load_suite",
    "parse_suite",
]
