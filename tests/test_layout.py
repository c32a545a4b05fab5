"""The shape of the code: which way imports point, how long modules grow, what packages export."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"

# What each package may import, besides itself.
ALLOWED = {
    "data": set(),
    "physics": set(),
    "learners": {"physics"},
    "hybrid": {"learners", "physics", "data"},
    "experiments": {"hybrid", "learners", "physics", "data"},
}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(*nodes):
    """Top-level names that are imported anywhere inside the nodes."""
    names = set()
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add((node.module or "").split(".")[0])
    return names


def imported_on_load(path):
    """Names imported by running the module, not by calling its functions."""
    tree = parse(path)
    for node in ast.walk(tree):
        for_types_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or for_types_only:
            node.body = []
    return imported(tree)


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_point_one_way(package):
    others = {*ALLOWED, "tests"} - ALLOWED[package] - {package}
    wrong = {str(p): imported(parse(p)) & others for p in modules(package)}
    assert {path: names for path, names in wrong.items() if names} == {}


@pytest.mark.parametrize("package", [*ALLOWED, "tests"])
def test_modules_are_short_and_say_why_they_exist(package):
    paths = modules(package)
    assert [p for p in paths if len(p.read_text(encoding="utf-8").splitlines()) > 400] == []
    assert [p for p in paths if not ast.get_docstring(parse(p))] == []


@pytest.mark.parametrize("init", [p for a in ALLOWED for p in (ROOT / a).rglob("__init__.py")])
def test_a_package_exports_few_names_and_lists_them(init):
    tree = parse(init)
    listed = [ast.literal_eval(n.value) for n in tree.body if _assigns(n, "__all__")]
    exported = set(listed[0]) if listed else set()
    assert len(exported) <= 25
    imports = [n for n in tree.body if isinstance(n, ast.ImportFrom)]
    ours = {a.name for n in imports if n.module.split(".")[0] in ALLOWED for a in n.names}
    assert ours <= exported


def test_what_workers_load_does_not_load_jax():
    """DataLoader workers import `data` and the entry point, and must not hold JAX."""
    for path in modules("data"):
        if path.name not in {"bridge.py", "prefetch.py"}:  # run in the main process only
            assert not imported_on_load(path) & JAX, path
    for path in (ROOT / "experiments").glob("*.py"):
        assert not imported_on_load(path) & (JAX | {"hybrid", "learners", "physics"}), path


def test_the_readme_names_make_targets_that_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    used = set(re.findall(r"\bmake ([a-z][a-z-]*)", README.read_text(encoding="utf-8")))
    assert {"demo", "test"} <= used <= targets
    assert set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()) == targets


def test_the_readme_links_to_files_that_exist():
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", README.read_text(encoding="utf-8"))
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not (ROOT / link).exists()] == []


def test_commands_that_are_named_exist():
    texts = [p.read_text(encoding="utf-8") for a in ALLOWED for p in modules(a)]
    texts += [README.read_text(encoding="utf-8"), (ROOT / "Makefile").read_text(encoding="utf-8")]
    commands = {c for text in texts for c in re.findall(r"-m (experiments\.[a-z]\w*)", text)}
    assert commands
    assert [c for c in commands if not (ROOT / f"{c.replace('.', '/')}.py").exists()] == []


def _assigns(node, name):
    return isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id == name for target in node.targets
    )
