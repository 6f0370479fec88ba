"""The house itself: floors, names, and what starting the command line costs."""

import ast
import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {
    "iqa_errors": set(),
    "iqa_models": {"iqa_errors"},
    "iqa_results": {"iqa_errors"},
    "iqa_attacks": {"iqa_models", "iqa_errors"},
    "iqa_reports": {"iqa_results", "iqa_errors"},
    "iqa_suites": {"iqa_attacks", "iqa_models", "iqa_errors"},
    "iqa_harness": {"iqa_models", "iqa_results", "iqa_attacks", "iqa_reports", "iqa_suites", "iqa_errors"},
}
FOLDERS = {name: ROOT / name.removeprefix("iqa_") / name for name in FLOORS if name != "iqa_errors"}
FOLDERS["iqa_errors"] = ROOT / "results" / "iqa_errors"


@cache
def _tree(path):
    """Return a file as it is parsed; only to be read."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _nodes(path):
    """Return all nodes of a file; only to be read."""
    return list(ast.walk(_tree(path)))


def _imports(path):
    """Yield the full name of every module a file imports, wherever in the file."""
    for node in _nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


@pytest.mark.parametrize("package", FLOORS)
def test_imports_go_down_the_floors(package):
    """No file imports a package of its own floor or above, not even inside a function."""
    for path in FOLDERS[package].rglob("*.py"):
        for module in _imports(path):
            root = module.split(".")[0]
            if root.startswith("iqa_") and root != package:
                assert root in FLOORS[package], f"{path} imports {module}"


def test_modules_form_no_circle():
    """No module reaches itself through module-level imports."""
    modules = {}
    for package, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            name = ".".join((package, *path.relative_to(folder).with_suffix("").parts)).removesuffix(
                ".__init__"
            )
            modules[name] = path
    graph = {}
    for name, path in modules.items():
        body = _tree(path).body
        targets = set()
        for node in body:
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                targets |= {t for t in inner if t in modules} or {node.module}
        graph[name] = {t for t in targets if t in modules and t != name}
    state = {}

    def visit(name, trail):
        if state.get(name) == "done":
            return
        assert state.get(name) != "open", " -> ".join([*trail, name])
        state[name] = "open"
        for target in sorted(graph[name]):
            # A package imports its own modules to re-export them; they import siblings by full name.
            visit(target, [*trail, name])
        state[name] = "done"

    for name in sorted(graph):
        visit(name, [])


def test_help_imports_no_torch():
    """The command line starts without the heavy libraries."""
    code = (
        "import sys\n"
        "sys.argv = ['iqa-harness', '--help']\n"
        "from iqa_harness.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'timm', 'pandas', 'scipy', 'matplotlib', 'pyarrow', 'skimage'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    path = [str(folder.parent) for folder in FOLDERS.values()]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "attack" in done.stdout


@pytest.mark.parametrize("package", FLOORS)
def test_exported_names_exist(package):
    """Everything a package says it exports is there."""
    module = importlib.import_module(package)
    for name in getattr(module, "__all__", ()):
        assert hasattr(module, name), f"{package}.{name}"


@pytest.mark.parametrize("folder", sorted({p.parent.name for p in FOLDERS.values()}))
def test_every_folder_has_a_readme_of_a_screen(folder):
    """A stranger finds out what lives in a folder in one look; tables of columns or figures add to it."""
    lines = (ROOT / folder / "README.md").read_text().splitlines()
    assert lines
    assert len(lines) <= {"results": 160, "models": 125}.get(folder, 90)


def test_no_file_holds_more_than_500_lines():
    """A file that long holds two ideas."""
    for root in [*FOLDERS.values(), ROOT / "tests"]:
        for path in root.rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 500, path


def _own_lines(function, lines):
    """Lines of code of a function: no docstring, comment or blank line, nothing of functions within it."""
    inner = [n for n in ast.walk(function) if n is not function and isinstance(n, ast.FunctionDef)]
    left_out = {line for n in inner for line in range(n.lineno, n.end_lineno + 1)}
    if ast.get_docstring(function):
        text = function.body[0]
        left_out |= set(range(text.lineno, text.end_lineno + 1))
    code = (
        lines[i - 1].strip() for i in range(function.lineno, function.end_lineno + 1) if i not in left_out
    )
    return sum(bool(line) and not line.startswith("#") for line in code)


def _sizes():
    """Yield place, lines, number of arguments and the comment above, of every function of the product."""
    for root in FOLDERS.values():
        for path in sorted(root.rglob("*.py")):
            lines = path.read_text().splitlines()
            for node in _nodes(path):
                if isinstance(node, ast.FunctionDef):
                    a = node.args
                    names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
                    count = sum(name not in ("self", "cls") for name in names)
                    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                    yield f"{path}:{node.name}", _own_lines(node, lines), count, lines[first - 2]


def test_functions_are_short_and_take_few_arguments():
    """At most 50 lines of code and 8 arguments; a command has an argument an option, and so has its verb.

    Elsewhere a comment above a function says why it takes more.
    """
    for place, length, arguments, above in _sizes():
        if "/iqa_harness/cli/" in place:
            continue
        verb = "/iqa_harness/api/" in place
        assert length <= (60 if verb else 50), place
        assert arguments <= 8 or verb or above.strip().startswith("#"), place


def test_commands_hold_options_and_printing():
    """A command calls the API; besides it imports what prints, and types. No command imports another."""
    shared = {"arguments", "command", "printing", "tables", "training"}
    allowed = ("iqa_harness.api", "iqa_harness.errors", "iqa_harness.wording", "iqa_reports", "iqa_errors")
    for path in (FOLDERS["iqa_harness"] / "cli").glob("*.py"):
        tree = _tree(path)
        typing_only = [
            n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
        ]
        types = {id(n) for block in typing_only for n in ast.walk(block)}
        for node in ast.walk(tree):
            module = node.module if isinstance(node, ast.ImportFrom) else ""
            if id(node) in types or not module.startswith("iqa_"):
                continue
            if module.startswith("iqa_harness.cli"):
                assert path.name in ("app.py", "__init__.py") or module.split(".")[-1] in shared, path
            else:
                prints = (
                    "iqa_harness.machine.terminal",
                    "iqa_harness.machine.places",
                    "iqa_models.registry",  # did you mean ...?
                )
                assert module.startswith((*allowed, *prints)), f"{path} imports {module}"


SOME_SYSTEMS = re.compile(
    r"import (?:fcntl|resource|pwd|grp|termios|pty)\b|\bsignal\.(?:SIGKILL|SIGALRM|SIGHUP)\b"
    r"|\bos\.(?:getuid|geteuid|fork|sched_getaffinity|killpg)\b"
)
"""What Windows lacks, or macOS too."""


def _is_text_without_encoding(node):
    """Whether a call reads or writes text in whatever encoding the system has."""
    if not isinstance(node, ast.Call) or any(k.arg == "encoding" for k in node.keywords):
        return False
    called = getattr(node.func, "attr", getattr(node.func, "id", ""))
    said = [a.value for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Constant)]
    opens = called == "open" and (isinstance(node.func, ast.Name) or {"r", "w", "a", "x"} & set(said))
    return called in ("read_text", "write_text") or bool(opens)


def test_what_a_system_may_lack_is_asked_for_first():
    """A function that uses it says what happens elsewhere, and texts name their encoding."""
    for path in (path for root in FOLDERS.values() for path in sorted(root.rglob("*.py"))):
        text = path.read_text(encoding="utf-8")
        uses_some = SOME_SYSTEMS.search(text)
        for node in _nodes(path):
            assert not _is_text_without_encoding(node), f"{path}:{node.lineno}"
            if uses_some and isinstance(node, ast.FunctionDef):
                here = "\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno])
                asks = re.search("win32|hasattr", here)
                assert asks or not SOME_SYSTEMS.search(here), f"{path}: {node.name}"
        assert not SOME_SYSTEMS.search(re.sub(r"(?m)^ .*$", "", text)), path  # a module as a whole
        assert ".double().cpu()" not in text, path  # MPS has no float64: to the host first


@pytest.mark.parametrize("package", FLOORS)
def test_every_package_ships_its_types(package):
    """A user's type checker reads them."""
    assert (FOLDERS[package] / "py.typed").is_file()
