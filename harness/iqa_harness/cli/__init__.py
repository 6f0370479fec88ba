"""The command line. Importing it loads no torch; every command imports what it needs when it runs."""

from iqa_harness.cli.app import app, main

__all__ = ["app", "main"]
