"""Claims of the pages: each test that they name exists, and counts are those of the results."""

import dataclasses
import re

import pytest

from tests.helpers import benchmarks, pages

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


@pytest.fixture(scope="module")
def studies():
    """The module of the protocol, and the tasks that have an answer."""
    pytest.importorskip("scipy", reason="needs SciPy")
    with benchmarks.imported(benchmarks.STUDIES, "page", "protocol") as found:
        page = found["page"]
        yield found["protocol"], page.counted(page.read_all(page.RESULTS))


README = (pages.ROOT / "README.md").read_text(encoding="utf-8")
COUNTS = {
    "should-i-use-it.md": r"measured (\d+) settings.*better in (\d+), worse in (\d+), .* (\d+) no",
    "../README.md": r"of (\d+) such tasks.*better on (\d+), worse on (\d+), .* shown on (\d+)",
}


def cells_of_other_regimes():
    """The cells of each row of the table of other regimes, by the name of its task."""
    table = re.search(r"<!-- other-regimes -->(.*?)<!-- end -->", read("results.md"), re.DOTALL)[1]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    return {re.match(r"`([\w-]+)`", row[0])[1]: row for row in rows}


@pytest.mark.parametrize("page", COUNTS)
def test_a_page_counts_what_the_results_show(page):
    verdicts = [row[-1].replace("*", "") for row in cells_of_other_regimes().values()]
    (counts,) = re.findall(COUNTS[page], read(page), re.DOTALL)
    better, worse = (
        sum(each.startswith(word) for each in verdicts) for word in ("better", "worse")
    )
    rest = len(verdicts) - better - worse
    assert [*map(int, counts)] == [len(verdicts), better, worse, rest]


def test_the_readme_gives_numbers_of_the_results():
    rows = re.findall(r"\(`([\w-]+)`\), (\d+) seeds \| (.+) \|$", README, re.MULTILINE)
    assert len(rows) == 5
    for task, seeds, cells in rows:
        *losses, interval = (cell.strip() for cell in cells.split("|"))
        answer = answers()[task]
        assert seeds == answer[1].split()[0]
        assert f"({interval.removesuffix(' %')})" in answer[4].replace("-", "\N{MINUS SIGN}")
        _, _, section = read("results.md").partition(f"<!-- {task} -->")
        for arm, loss in zip((answer[3], answer[2]), losses, strict=True):
            line = re.search(rf"^\| \**{arm}\** \|.*$", section, re.MULTILINE)[0]
            assert line.split(" | ")[4].startswith(f"{loss} ")


def rows_of(name):
    """The cells of each row of a table of tasks in the results, by the name of the task."""
    page = read("results.md").replace("\N{MINUS SIGN}", "-")
    table = page.partition(f"<!-- {name} -->")[2].partition("<!-- end -->")[0]
    return {line.split("]")[0][3:]: line.strip("| ").split(" | ") for line in table.splitlines()
            if line.startswith("| [")}  # fmt: skip


def answers():
    return rows_of("answers")


def test_the_readme_counts_the_answers():
    rows = answers().values()
    intervals = [[float(each) for each in re.findall(r"[-+][\d.]+", row[4])] for row in rows]
    (counts,) = re.findall(
        r"(\d+) of (\d+) tasks shows? a gain.* and (\d+) exclude.* control, in (\d+), .* masks in "
        r"(\d+), with losses in (\d+); one conventional run over all epochs is better in (\d+), "
        r"worse in none\.",
        README,
        re.DOTALL,
    )
    better = sum(row[6].startswith("**better") for row in rows)
    excluded = sum(low > -1 for _, low, _ in intervals)
    # Columns are the first dense phase, the low rate, the first rate, the same rates, one run; then
    # one run and DSD within it.
    columns = ((2, "**"), (4, "**"), (4, "_"), (5, "_"), (5, "**"), (6, "**"))
    found = [sum(row[column].startswith(mark) for row in rows_of("controls").values())
             for column, mark in columns]  # fmt: skip
    assert [*map(int, counts), 0] == [better, len(rows), excluded, *found[:-1]]
    words = f"better than the same run without DSD on {found[-1]} of {len(rows)}."
    assert words in " ".join(README.split())


def test_dsd_in_one_run_is_better_than_dsd_on_most_tasks(studies):
    protocol, tasks = studies
    found = [each.against(protocol.DSD, protocol.DSD_SINGLE) for each in tasks.values()]
    assert sum(each.best.mean < 0 for each in found) > len(found) / 2
    for page in ("should-i-use-it.md", "../README.md"):
        assert "on most tasks" in " ".join(read(page).split())


def test_training_on_after_the_first_phases_gains_what_the_page_says(studies):
    protocol, tasks = studies

    def gains(control):
        every = {name: each.against(protocol.FIRST, control) for name, each in tasks.items()}
        return {name: -100 * found.best.mean / found.mean for name, found in every.items()}

    low, high = gains(protocol.LOW), gains(protocol.HIGH)
    short = {name: gain for name, gain in sorted(high.items()) if gain > 1}
    text = " ".join(read("results.md").split())
    most, below = f"{max(low.values()):.1f}", sum(gain < 1 for gain in low.values())
    assert f"gains {most} % at most, and below 1 % in {below} of {len(low)} tasks" in text
    first, *others, last = (f"`{name}`" for name in short)
    words = f"{', '.join([first, *others])} and {last} gain "
    words += f"{min(short.values()):.2g} to {max(short.values()):.2g} %"
    assert f"{words} at the first rate" in text


def test_seeds_added_after_a_look_are_reported_apart(studies):
    protocol, tasks = studies
    reported = tasks["letters"].records.reported
    parts = [[run for run in reported if (run.seed < 10) == is_first] for is_first in (True, False)]
    first, new = (protocol.answer(part, "one run", "dsd in one run") for part in parts)
    assert (first.best.number, new.best.number) == (10, 20)
    text = " ".join(read("results.md").split())
    assert f"with a gain of {-100 * first.best.mean / first.mean:.2g} % (p = 0.012 before" in text
    assert round(first.best.p_value, 3) == 0.012
    mean, low, high = (-100 * each / new.mean for each in
                       (new.best.mean, new.best.high, new.best.low))  # fmt: skip
    shown = f"{mean:.2f} % ({low:.2f} to {high:.2f}; p = {new.best.p_value:.2g})"
    assert f"the 20 new ones alone show {shown}" in text


def test_the_readme_takes_two_minutes():
    assert len(README.splitlines()) <= 120
    assert len(README.split()) <= 900


@pytest.mark.parametrize(("task", "number"), [
    ("mnist-shifts", "-3.2"), ("fashion-shifts", "-0.6"), ("letters", "-0.2"), ("captions", "+2.5"),
    ("pronunciation", "+0.9"),
])  # fmt: skip
def test_should_i_use_it_gives_what_masks_alone_make(task, number):
    mean = float(re.search(r"[-+][\d.]+", rows_of("controls")[task][4])[0])
    assert f"{mean:+.1f}" == number
    assert re.search(rf"{number[1:]} %\s+\(`{task}`", read("should-i-use-it.md"))


def test_should_i_use_it_names_the_tasks_where_dsd_in_one_run_is_better_or_worse():
    text = " ".join(read("should-i-use-it.md").split())
    better, worse = re.search(r"It is better on (.*?), worse on (.*?); on the other", text).groups()
    for part, mark in ((better, "**"), (worse, "_")):
        cells = {task: row[6] for task, row in rows_of("controls").items()}
        found = {task: re.search(r"[\d.]+", cell)[0]
                 for task, cell in cells.items() if cell.startswith(mark)}  # fmt: skip
        assert dict(re.findall(r"`([\w-]+)` by ([\d.]+) %", part)) == found


def test_should_i_use_it_says_which_gains_no_interval_reaches():
    found = {task: re.findall(r"[-+][\d.]+", row[4]) for task, row in answers().items()}
    assert answers()["spoken-digits"][7] == "17"
    del found["spoken-digits"]
    assert min(float(low) for _, low, _ in found.values()) > -3
    words = "No interval reaches a gain of 3 %, but that of `spoken-digits`, which shows nothing"
    assert f"{words} below 17 %" in " ".join(read("should-i-use-it.md").split())


def test_dsd_gains_where_plain_training_gains_from_more_epochs():
    """The counts that the section on what the gain depends on gives."""
    rows = {task: [float(re.search(r"[-+][\d.]+", cell)[0]) for cell in row[1:]]
            for task, row in rows_of("controls").items()}  # fmt: skip
    gaining = {task for task, means in rows.items() if means[0] < -1}
    assert gaining == {task for task, means in rows.items() if means[-1] < -2}
    less = {task for task in gaining if rows[task][-1] > rows[task][0]}
    equal = [task for task, row in rows_of("controls").items() if row[1] == row[3]]
    text = " ".join(read("results.md").split())
    numbers = ("none", "one", "two", *"three four five six seven eight nine ten eleven".split())
    assert f"in the {numbers[len(gaining)]} tasks where plain training gains more than 2 %" in text
    assert f"plain training gains more in all but {numbers[len(less)]}" in text
    assert f"in {numbers[len(equal)]} tasks its best epoch is that of `first dense`" in text


def test_verdicts_hold_with_intervals_for_new_splits_of_the_data(studies):
    """Intervals of tasks that split their data again are wider, after Nadeau and Bengio (2003)."""
    from scipy import stats

    protocol, tasks = studies
    of_sentences, of_pieces = (1 / 8) / (3 / 4), (1 / 5) / (3 / 5)  # test data over training data
    ratios = {**dict.fromkeys(("polarity", "subjectivity"), of_sentences),
              **dict.fromkeys(("chorales", "nottingham", "musedata"), of_pieces)}  # fmt: skip

    def widened(name, answer):
        best = answer.best
        factor = (1 + best.number * ratios.get(name, 0)) ** 0.5
        reach = factor * (best.high - best.mean)
        t = abs(best.mean) * best.number**0.5 / best.sd / factor
        best = dataclasses.replace(
            best, low=best.mean - reach, high=best.mean + reach,
            p_value=float(2 * stats.t.sf(t, best.number - 1)),
        )  # fmt: skip
        return dataclasses.replace(answer, best=best)

    for question in ("unpruned", "pruned"):
        every = {name: getattr(each, question) for name, each in tasks.items()}
        wider = {name: widened(name, each) for name, each in every.items()}
        assert protocol.verdicts(wider) == protocol.verdicts(every)
    factors = ((1 + 10 * ratio) ** 0.5 for ratio in (of_sentences, of_pieces))
    words = "by a factor of {:.1f} (sentences) and {:.1f} (pieces)".format(*factors)
    assert words in " ".join(read("results.md").split())
