"""Texts of the package, its documents and its tests use the terms of the field."""

import ast
import functools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = sorted(ROOT.glob("keras_dsd/**/*.py"))
PAGES = [
    path for glob in ("*.md", "docs/**/*.md", "*s/**/*.md") for path in sorted(ROOT.glob(glob))
]
# Other words, and the term of the field.
TERMS = {
    "anew, afresh, set back": "again; optimizer state is reset",
    "in force": "active mask",
    "let go, lets go": "remove the mask",
    "goes on, go on, went on, going on": "resume; continue",
    "of your own, of the user's own, of their own, of its own, of his own, of one's own, "
    "of yours": "custom; separate",
    "by hand": "manually; in a custom training loop",
    "is told, are told, was told, were told, be told, been told, told of": "is notified; receives",
    "astray, part from, parts from": "violates the mask; branches from",
    "leftover, left over": "remaining epochs",
    "as long": "for the same number of epochs",
    "begin, begins, began, begun, beginning": "start",
    "weights return, weights returned, weights that return, weights that returned, "
    "return from zero": "regrow, regrown weights",
    "places, positions where": "entries, indices",
    "is not whole, are not whole, whole file, whole model, whole path, whole run, "
    "whole program": "complete, full",
    "mask is held, masks are held, kept beside the model": "active; stored per model",
    "asked for, asked to": "target sparsity",
    "in words": "as text",
    "door, doors, seam, seams": "adapter, protocol",
    "is no, are no": "is not a; without",
}
FITTING = {  # that which follows or precedes, with which the words are right
    "as long": "(?! as)",
    "is no": "(?<!there is no)(?! longer| more| difference)",
    "are no": "(?<!there are no)(?! longer| more| difference)",
}
PHRASES = {
    phrase: (re.compile(rf"\b{phrase}\b{FITTING.get(phrase, '')}"), term)
    for phrases, term in TERMS.items()
    for phrase in phrases.split(", ")
}
FOLDERS = ["keras_dsd", "examples", "benchmarks", "tools", "tests"]
EXCEPT = {
    "tests/unit/test_vocabulary.py",
    "benchmarks/studies/page.py",  # rewords the records' texts, which stay
    "benchmarks/studies/tasks.py",  # writes them: a study resumes if they are unchanged
}
OPENINGS = re.compile(r'"""(What|Whether|Which|How many|How much|How|Where|Whose|If) ')
RAISED = {"ValueError", "TypeError"}


@functools.cache
def source_of(path):
    return path.read_text(encoding="utf-8")


@functools.cache
def statements_of(path):
    """The module and its statements at all depths: `ast.walk` without the expressions."""
    found = [ast.parse(source_of(path))]
    for node in found:
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            found += getattr(node, name, None) or []
    return found


def texts_of(source):
    """The docstrings, other sentences and comments of a module, each with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.strip().count(" ") > 1:
                yield node.lineno, node.value
    for block in re.finditer(r"(?m)(?:^ *#.*\n)+|#.*$", source):
        yield source.count("\n", 0, block.start()) + 1, re.sub(r"(?m)^ *#", "", block[0])


def prose_of(page):
    """The lines of a page outside of code and of tables that programs write, with their numbers."""
    is_code = is_written = False
    for number, line in enumerate(source_of(page).splitlines(), 1):
        if re.fullmatch(r"<!-- (?!run|program)[^>]+ -->", line):
            is_written = line != "<!-- end -->"
        elif is_written:
            continue
        elif line.lstrip().startswith(("```", "<!-- run")) or line == "-->":
            is_code = line.startswith("<!-- run") or (not is_code and line != "-->")
        elif not is_code:
            yield number, re.sub(r"`[^`]*`", "`code`", line)


def other_words(path, texts):
    """The findings in a file. Most have none of the phrases, and are not parsed."""
    joined = " ".join(source_of(path).lower().split())
    for joint in (" # ", '" "', '" f"'):  # where comments and strings continue on the next line
        joined = joined.replace(joint, " " if "#" in joint else "")
    phrases = [phrase for phrase in PHRASES if phrase in joined]
    if not any(PHRASES[phrase][0].search(joined) for phrase in phrases):
        return
    for line, text in texts():
        plain = " ".join(text.lower().split())
        for phrase in phrases:
            pattern, term = PHRASES[phrase]
            if pattern.search(plain):
                yield f"{path.relative_to(ROOT)}:{line}: {phrase!r} instead of: {term}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_modules_use_the_terms_of_the_field(folder):
    paths = [path for path in sorted(ROOT.glob(f"{folder}/**/*.py"))
             if str(path.relative_to(ROOT)) not in EXCEPT]  # fmt: skip
    found = (other_words(path, lambda path=path: texts_of(source_of(path))) for path in paths)
    assert [line for lines in found for line in lines] == []


def test_pages_use_the_terms_of_the_field():
    found = (other_words(page, lambda page=page: prose_of(page)) for page in PAGES)
    assert [line for lines in found for line in lines] == []


def test_names_of_tests_use_the_terms_of_the_field():
    found = []
    for path in sorted(ROOT.glob("tests/**/test_*.py")):
        for name in re.findall(r"(?m)^def (test_\w+)", source_of(path)):
            words = name.replace("_", " ").replace("begin epoch", "`code`")
            found += [name for phrase in PHRASES if phrase in words
                      and PHRASES[phrase][0].search(words)]  # fmt: skip
    assert found == []


def test_docstrings_start_with_a_noun_phrase_or_an_imperative():
    found = []
    for path in [path for folder in FOLDERS for path in ROOT.glob(f"{folder}/**/*.py")]:
        if not OPENINGS.search(source_of(path)):
            continue
        for node in statements_of(path):
            kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
            text = (ast.get_docstring(node) or "") if isinstance(node, kinds) else ""
            if OPENINGS.match(f'"""{text}'):
                found.append((str(path.relative_to(ROOT)), text.splitlines()[0]))
    assert found == []


def literal(node):
    """The text of a string or an f-string, with its values in braces; None of anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(getattr(part, "value", "{}") if isinstance(part, ast.Constant) else "{}"
                       for part in node.values)  # fmt: skip
    return None


def test_errors_say_what_was_expected_what_was_received_and_what_to_do():
    found = []
    for path in MODULES:
        for node in statements_of(path):
            call = node.exc if isinstance(node, ast.Raise) else None
            if not isinstance(call, ast.Call) or getattr(call.func, "id", "") not in RAISED:
                continue
            text = literal(call.args[0]) if call.args else None
            if text is None or not text[:1].isupper() or text.count(" ") < 4:
                continue  # part of a message that is composed elsewhere
            if not re.fullmatch(r"(?s)Expected .+ Received: .+[.,] .+", text):
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", text))
    assert found == []
