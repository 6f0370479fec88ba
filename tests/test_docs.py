"""The pages say what is so: links lead somewhere, commands and examples run, messages are the code's."""

import json
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import typer

from iqa_harness.cli import app, main

ROOT = Path(__file__).resolve().parents[1]
LISTED = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False)
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in LISTED.stdout.split()}
RUN = ("docs/terminal.md", "docs/own-data.md", "docs/own-attack.md", "docs/ci.md")
FENCE = re.compile(r"^```(\S*)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TREE = re.compile(r"^(?:.* <)?(\.\./[\w/.-]+|[a-z*\[\]-]+)>?$")


def prose(text):
    """Return a page without its fences and inline code."""
    return re.sub(r"`[^`\n]+`", "", FENCE.sub("", text))


def anchors(text):
    """Return the anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_a_file_and_a_heading_that_are_there(page):
    """Of all pages of the repository; those of the web are not asked."""
    for link in LINK.findall(prose(PAGES[page])):
        if re.match(r"\w+:", link):
            continue
        where, _, anchor = link.partition("#")
        target = (ROOT / page).parent / where if where else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_the_table_of_contents_names_pages_that_are_there():
    """And every page of docs/ stands in it or is linked from it."""
    index = PAGES["docs/index.md"]
    named = set()
    for fence, _, body in FENCE.findall(index):
        assert fence == "{toctree}"
        for line in body.splitlines():
            match = TREE.match(line)
            if match and not line.startswith(":"):
                named |= {page.name for page in (ROOT / "docs").glob(f"{match[1]}.md")}
                assert "*" in line or (ROOT / "docs" / f"{match[1]}.md").is_file(), line
    assert {p.name for p in (ROOT / "docs").glob("*.md")} - {"index.md"} <= named


def command_lines(text):
    """Yield the lines of a page's fences that call iqa-harness, continued ones joined."""
    for _, _, body in FENCE.findall(text):
        for line in body.replace("\\\n", " ").splitlines():
            called = line.strip().removeprefix("$ ").removeprefix("run: ")
            if called.startswith("iqa-harness "):
                yield called


@cache
def root_command():
    """The command line as it is parsed; only to be read."""
    return typer.main.get_command(app)


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if list(command_lines(text))])
def test_every_command_of_a_page_can_be_typed(page):
    """Each names a command and options that there are; `...` stands for more of them."""
    root = root_command()
    for line in command_lines(PAGES[page]):
        words = shlex.split(line, comments=True)[1:]
        command = root
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        known = {opt for param in command.params for opt in (*param.opts, *param.secondary_opts)}
        assert command is not root or words[0].startswith("-"), line
        for word in words:
            if word.startswith("-") and not re.match(r"-[\d.]", word):
                assert word.partition("=")[0] in known | {"--help", "--version", "--install-completion"}, line


def type_in(line, monkeypatch):
    """Type a command line; return its exit code."""
    monkeypatch.setattr(sys, "argv", shlex.split(line, comments=True))
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One folder, and so one store, for all pages: what one has computed the next one finds."""
    return tmp_path_factory.mktemp("pages")


@pytest.fixture
def folder(monkeypatch, place):
    """That folder, worked in."""
    monkeypatch.setenv("IQA_HARNESS_CACHE", str(place / "cache"))
    monkeypatch.chdir(place)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_a_page_does_what_it_says(page, folder, monkeypatch):
    """Its files, code and commands in their order, each with the exit code it names, 0 if none."""
    names = {"__name__": "page"}
    ran = 0
    for kind, file, body in FENCE.findall(PAGES[page]):
        if file:
            (folder / file).write_text(body)
        elif kind == "python":
            exec(compile(body, page, "exec"), names)  # noqa: S102 - the page under test
        elif kind == "sh":
            for line in body.splitlines():
                wanted = re.search(r"# exit code (\d+)", line)
                assert type_in(line, monkeypatch) == int(wanted[1] if wanted else 0), line
                ran += 1
    assert ran


@pytest.mark.slow
def test_the_notebook_runs(folder):
    """Every cell, in order; the last expression of the first is the leaderboard, of the last the page."""
    notebook = json.loads((ROOT / "docs/notebook.ipynb").read_text(encoding="utf-8"))
    cells = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names = {"__name__": "__main__"}
    for source in cells:
        exec(compile(source, "notebook.ipynb", "exec"), names)  # noqa: S102 - the notebook under test
    assert "linear" in names["run"]._repr_html_()
    assert set(names["run"].verdicts) == {"linear", "filters"}
    assert len(names["worst"]) == 6
    assert len(names["drift"]) == len(names["attacked"]) > 0
    assert (folder / "report" / "index.html").is_file()
    assert all(not cell.get("outputs") for cell in notebook["cells"])  # nothing of another run


def test_the_messages_of_the_faq_are_those_of_the_code():
    """Word for word, in the source of some package."""
    source = "".join(
        path.read_text(encoding="utf-8")
        for top in ("harness", "models", "attacks", "suites", "results")
        for path in (ROOT / top).rglob("*.py")
    )
    joined = re.sub(r'"\s*\n\s*f?"', "", source)  # a text over several lines
    messages = re.findall(r"^\| `([^`]+)` \|", PAGES["docs/faq.md"], re.MULTILINE)
    assert len(messages) > 10
    for message in messages:
        assert message in joined, message


WRITTEN = ("harness/flags.md", "results/columns.md", "reports/leaderboard.md")
"""Pages that the code writes: its own texts, a line a text, and the board of a study."""
PLAIN = [page for page in PAGES if not page.startswith(("tests/", "CHANGELOG", *WRITTEN))]


@pytest.mark.parametrize("page", PLAIN)
def test_pages_are_plain(page):
    """No paragraph above 80 words, no line above 120 characters; tables and fences may be wide."""
    text = FENCE.sub("", PAGES[page])
    for line in text.splitlines():
        assert len(line) <= 120 or line.startswith("|"), line
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*|#]|\d+\.) )|\n(?=\|)", text)
    for block in blocks:
        words = 0 if block.lstrip().startswith("|") else len(block.split())
        assert words <= 80, block
