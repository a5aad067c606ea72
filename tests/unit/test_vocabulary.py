"""Texts of the package and of its documents use the terms of the field, and errors three parts."""

import ast
import io
import pathlib
import re
import tokenize

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = sorted(ROOT.glob("keras_dsd/**/*.py"))
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md"))]
# A pattern of other words, and the term of the field.
TERMS = {
    r"\banew\b|\bafresh\b|\bset back\b": "again; optimizer state is reset",
    r"\bin force\b": "active mask",
    r"\b(let|lets) go\b": "remove the mask",
    r"\b(goes|go|went|going) on\b": "resume; continue",
    r"\bof (your|yours|the user's|their|its|his) own\b|\ba \w+ of yours\b": "custom; separate",
    r"\bby hand\b": "manually; in a custom training loop",
    r"\b(is|are|was|were|be|been) told\b|\btold of\b": "is notified; receives",
    r"\bastray\b|\bparts? from\b": "violates the mask; branches from",
    r"\bleft ?over\b": "remaining epochs",
    r"\bas long\b(?! as)": "for the same number of epochs",
    r"\b(begin|begins|began|begun|beginning)\b": "start",
    r"\bweights (that )?return(ed)?\b|\breturn from zero\b": "regrow, regrown weights",
    r"\bplaces\b|\bpositions where\b": "entries, indices",
    r"\b(is|are) not whole\b|\bwhole (file|model|path|run|program)\b": "complete, full",
    r"\bmasks? (is|are) held\b|\bkept beside the model\b": "active; stored per model",
    r"\basked (for|to)\b": "target sparsity",
    r"\bin words\b": "as text",
    r"\bdoors?\b|\bseams?\b": "adapter, protocol",
    r"(?<!there )\b(is|are) no (?!longer|more|difference)": "is not a; without",
}
ANY_TERM = re.compile("|".join(TERMS), re.IGNORECASE)
OPENINGS = r"(What|Whether|Which|How many|How much|How|Where|Whose|If) "
RAISED = {"ValueError", "TypeError"}


def texts_of(path):
    """The docstrings, other sentences and comments of a module, each with its line."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.strip().count(" ") > 1:
                yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def prose_of(page):
    """The lines of a page outside of code and of tables that programs write, with their numbers."""
    is_code = is_written = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if re.fullmatch(r"<!-- (?!run|program)[^>]+ -->", line):
            is_written = line != "<!-- end -->"
        elif is_written:
            continue
        elif line.lstrip().startswith(("```", "<!-- run")) or line == "-->":
            is_code = line.startswith("<!-- run") or (not is_code and line != "-->")
        elif not is_code:
            yield number, re.sub(r"`[^`]*`", "`code`", line)


def other_words(path, texts):
    name = path.relative_to(ROOT)
    for line, text in texts:
        plain = " ".join(text.split())
        if not ANY_TERM.search(plain):
            continue
        for pattern, term in TERMS.items():
            for found in re.finditer(pattern, plain, re.IGNORECASE):
                yield f"{name}:{line}: {found[0]!r} instead of: {term}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_uses_the_terms_of_the_field(path):
    assert [*other_words(path, texts_of(path))] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_uses_the_terms_of_the_field(path):
    assert [*other_words(path, prose_of(path))] == []


def test_docstrings_start_with_a_noun_phrase_or_an_imperative():
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
            text = (ast.get_docstring(node) or "") if isinstance(node, kinds) else ""
            if re.match(OPENINGS, text):
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
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            call = node.exc if isinstance(node, ast.Raise) else None
            if not isinstance(call, ast.Call) or getattr(call.func, "id", "") not in RAISED:
                continue
            text = literal(call.args[0]) if call.args else None
            if text is None or not text[:1].isupper() or text.count(" ") < 4:
                continue  # part of a message that is composed elsewhere
            if not re.fullmatch(r"(?s)Expected .+ Received: .+[.,] .+", text):
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", text))
    assert found == []
