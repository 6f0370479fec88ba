"""The pages of this repository as one site: `make docs`. Sources are the Markdown files where they stand."""

project = "iqa-harness"
author = "The iqa-harness authors"
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    ".github/CONTRIBUTING.md",
    "docs/*.md",
    "*/*.md",
    "*/iqa_*/**/README.md",
    "results/baselines/README.md",
]
exclude_patterns = ["docs/_build", ".venv", "tests"]
html_theme = "furo"
html_title = "iqa-harness"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["toc.not_included", "misc.highlighting_failure"]  # package READMEs are reached by links
