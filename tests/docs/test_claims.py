"""What pages claim: each test that they name exists, and counts are those of the results."""

import re

import pytest

from tests.helpers import pages

TESTS = pages.ROOT / "tests"
DOCS = pages.ROOT / "docs"


def read(name):
    return (DOCS / name).read_text(encoding="utf-8")


def test_every_row_of_the_compatibility_page_names_tests_that_exist():
    rows = [line for line in read("compatibility.md").splitlines() if line.startswith("| ")]
    cells = [row.rsplit("|", 2)[1].strip() for row in rows if not row.endswith("| Test |")]
    assert len(cells) > 40
    for cell in cells:
        named = re.findall(r"`(\w+/test_\w+\.py)(?:::(\w+))?`", cell)
        assert named or cell == "the same", cell
        for path, function in named:
            assert not function or f"def {function}(" in (TESTS / path).read_text(), (
                path,
                function,
            )


@pytest.mark.parametrize("page", ["tf-mot.md", "paper-to-code.md"])
def test_functions_and_tests_that_a_page_names_exist(page):
    text = read(page)
    for name in re.findall(r"\btest_\w+\.py\b", text):
        assert [*TESTS.glob(f"*/{name}")], name
    for name, path in re.findall(r"`(\w+)` in \[[^\]]+\]\((\.\./[^)]+\.py)\)", text):
        assert f"def {name}(" in (DOCS / path).read_text(encoding="utf-8"), (name, path)


def test_should_i_use_it_counts_what_the_results_show():
    summary = re.search(r"<!-- summary -->(.*?)<!-- end -->", read("results.md"), re.DOTALL)[1]
    verdicts = [
        row.rsplit("|", 2)[1].strip(" *") for row in summary.splitlines() if row.startswith("| [")
    ]
    (said,) = re.findall(
        r"measured (\d+) settings.*better in (\d+), worse in (\d+), and in (\d+) no",
        read("should-i-use-it.md"), re.DOTALL,
    )  # fmt: skip
    kinds = ("better", "worse", "no difference shown")
    assert [*map(int, said)] == [len(verdicts), *map(verdicts.count, kinds)]


@pytest.mark.parametrize(("task", "numbers"), [
    ("char-mlp-300k", ("3.017", "3.038")), ("char-lstm", ("3.57", "3.41")),
])  # fmt: skip
def test_should_i_use_it_gives_numbers_of_the_results(task, numbers):
    (row,) = re.findall(rf"^\| \[{task}\].*$", read("results.md"), re.MULTILINE)
    (line,) = [
        part
        for part in read("should-i-use-it.md").split("\n\n")[-1].split("**")
        if f"[{task}]" in part
    ]
    for number in numbers:
        places = len(number.partition(".")[2])
        shown = {f"{float(value):.{places}f}" for value in re.findall(r"\d+\.\d+", row)}
        assert number in shown and number in line
