"""BUILD and the imports say the same.

A file needs what it imports, wherever the import stands: in a function and under TYPE_CHECKING
too, since a change there changes what the file does or how it is typed. Two things differ, as Bazel
knows no circles. A module does not list a package it lies in, though Python runs that first: the
package imports the module in turn. And what a module of keras_dsd loads by name, with a string
that is exactly another module's name, `:keras_dsd` lists in its stead: so that target is complete.
"""

import ast
import graphlib
import pathlib

import pytest

# Resolved, since Bazel runs a test in a tree of links to the few files that it lists.
ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = sorted(
    path.relative_to(ROOT) for top in ("keras_dsd", "tests") for path in (ROOT / top).rglob("*.py")
)
RUNNER = "tools/run_bazel_test.py"


def label_of(path):
    """A file's target is its path without ending; a package's is the folder's."""
    path = path.parent if path.name == "__init__.py" else path.with_suffix("")
    return path.as_posix()


LABELS = {label_of(path): path for path in FILES}
# pytest puts the folders of helpers on the path (pyproject.toml), so they go by their bare names.
MODULES = {label.replace("/", "."): label for label in LABELS} | {
    path.stem: label for label, path in LABELS.items() if path.parts[0] == "tests"
}


def is_test(path):
    return path.name.startswith("test_")


def nodes_of(path):
    return ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))


def imported_by(path):
    """Every dotted name that the file imports."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the import with its full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def loaded_by_name():
    """Every module of keras_dsd whose name stands in a string somewhere in keras_dsd."""
    ours = {module for module in MODULES if module.split(".")[0] == "keras_dsd"}
    for path in (path for path in FILES if path.parts[0] == "keras_dsd"):
        strings = (node.value for node in nodes_of(path) if isinstance(node, ast.Constant))
        yield from ours.intersection(text for text in strings if isinstance(text, str))


def deps_of(path):
    """What the imports of the file ask for, as BUILD writes it."""
    label, needed = label_of(path), set()
    for name in [*imported_by(path), *(loaded_by_name() if label == "keras_dsd" else ())]:
        parts = name.split(".")
        on_the_way = {".".join(parts[: end + 1]) for end in range(len(parts))}
        needed |= {MODULES[module] for module in on_the_way & MODULES.keys()}
    if is_test(path):
        needed |= {label_of(parent / "conftest.py") for parent in path.parents} & LABELS.keys()
    return sorted(f":{other}" for other in needed if not f"{label}/".startswith(f"{other}/"))


def rule_of(path):
    """The rule and the arguments that BUILD should have for the file."""
    given = {"name": label_of(path), "srcs": [path.as_posix()]}
    if path.name == "__init__.py" and len(path.parts) == 2:
        given["data"] = [f"{path.parts[0]}/py.typed"]
    if is_test(path):
        given |= {"srcs": [path.as_posix(), RUNNER], "main": RUNNER}
    if deps_of(path):
        given["deps"] = deps_of(path)
    return "py_test" if is_test(path) else "py_library", given


def rules():
    """What BUILD says, as `{name: (rule, arguments)}`. Its language is a part of Python's."""
    tree = ast.parse((ROOT / "BUILD").read_text(encoding="utf-8"))
    found = {}
    for call in (node.value for node in tree.body if isinstance(node.value, ast.Call)):
        given = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
        if "name" in given:
            assert given["name"] not in found, f"BUILD has {given['name']} twice"
            found[given["name"]] = (call.func.id, given)
    return found


def written(rule, given):
    lines = (f"    {word} = {value!r},\n" for word, value in given.items())
    return f"{rule}(\n{''.join(lines)})".replace("'", '"')


@pytest.mark.parametrize("path", FILES, ids=str)
def test_build_has_the_file_and_the_deps_that_it_imports(path):
    rule, given = rules().get(label_of(path), ("", {}))
    rule_due, due = rule_of(path)
    deps, deps_due = {*given.get("deps", [])}, {*due.get("deps", [])}
    assert (rule, {**given, "deps": deps}) == (rule_due, {**due, "deps": deps_due}), (
        f"{path} is not in BUILD as it imports: "
        f"deps missing {sorted(deps_due - deps)}, deps not imported {sorted(deps - deps_due)}. "
        f"Write:\n\n{written(rule_due, due)}\n"
    )


def test_build_has_no_rule_without_a_file():
    assert sorted(rules().keys() - LABELS.keys()) == []


def test_build_has_no_circle():
    graph = {
        name: [dep.removeprefix(":") for dep in given.get("deps", [])]
        for name, (_, given) in rules().items()
    }
    graphlib.TopologicalSorter(graph).prepare()
