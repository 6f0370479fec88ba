"""`python -m iqa_harness` is `iqa-harness`."""

from iqa_harness.cli import main

if __name__ == "__main__":
    main()
