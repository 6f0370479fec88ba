"""What several test files share; `from helpers import tiny`."""
