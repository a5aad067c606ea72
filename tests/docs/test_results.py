"""docs/results.md shows what the studies found, and says better only where it is shown."""

import pytest

from tests.helpers import benchmarks


@pytest.fixture(scope="module")
def page():
    with benchmarks.imported(benchmarks.STUDIES, "page") as found:
        yield found["page"]


def write(page, folder, name, ours, seeds=10, planned=10, missing=(), tuned=3):
    """Writes the records of a task whose controls are near 10, and DSD near `ours`."""
    identity = {
        "task": name, "words": f"What {name} is", "data": "a file", "seeds": planned,
        "lengths": {"dense": 2, "sparse": 1, "redense": 1}, "weights": 1000,
        "bases": [[0.1, 1e-4]], "tuning seeds": 3,
    }  # fmt: skip
    protocol, path = page.protocol, folder / f"{name}.json.gz"
    records = page.Records(path, identity)
    arms = {protocol.FIRST: 12.0, **dict.fromkeys(protocol.PLAIN, 10.5), "one run": 10.0,
            **dict.fromkeys((*protocol.PRUNED_ARMS, protocol.RANDOM, protocol.ITERATED), 10.2),
            "dsd in one run": 11.1, "dsd": ours}  # fmt: skip
    for seed in [*range(1000, 1000 + tuned), *range(seeds)]:
        noise = 0.05 * (seed % 3)
        records.add(
            [
                protocol.Run(
                    seed, arm, protocol.Setting(1e-4, 0.1), (*[value + 2] * 3, value),
                    (*[value + 2] * 3, value + noise * (1 + (arm == "dsd"))),
                    (3.0, 3.0, 3.0, 2.5), (0.2, 0.1), 1234, 60.0,
                )
                for arm, value in arms.items() if (seed, arm) not in missing
            ],
            (0.1, 1e-4),
        )  # fmt: skip


def table(name):
    return f"# Words\n\n<!-- {name} -->\nold\n<!-- end -->\n\nMore words.\n"


def test_the_page_shows_what_the_files_hold(page):
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.filled(text, page.RESULTS) == text, "run python benchmarks/studies/page.py"


@pytest.mark.parametrize(
    ("ours", "word"),
    [(9.0, "**better**"), (9.95, "equal within 1 %"), (11.0, "worse")],
)
def test_the_answers_say_what_is_shown(page, tmp_path, ours, word):
    write(page, tmp_path, "task", ours)
    text = page.filled(table("task") + table("answers"), tmp_path)
    (row,) = [line for line in text.splitlines() if line.startswith("| [task](#task)")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:4] == ["10", "`dsd`", "`one run`"], "arms are those that tuning chose"
    assert cells[6] == word


def test_a_table_is_written_in_its_place_and_words_stay(page, tmp_path):
    write(page, tmp_path, "task", 9.0)
    text = page.filled(table("task") + table("answers"), tmp_path)
    assert text.count("# Words\n") == text.count("More words.\n") == 2
    assert "old" not in text
    assert "What task is. Data: a file." in text
    assert "1,234 updates" in text
    assert page.filled(text, tmp_path) == text


def test_seeds_that_lack_an_arm_do_not_count_and_the_page_says_what_is_planned(page, tmp_path):
    write(page, tmp_path, "task", 9.0, seeds=11, planned=11, missing={(4, "pruned")})
    assert "**10 seeds of 11: it is not complete**" in page.filled(table("task"), tmp_path)
    assert "| 10 of 11, so far |" in page.filled(table("task") + table("answers"), tmp_path)


def test_a_task_without_a_table_is_refused(page, tmp_path):
    write(page, tmp_path, "task", 9.0)
    with pytest.raises(ValueError, match="none for \\['task'\\]"):
        page.filled(table("other"), tmp_path)


def test_a_task_that_is_still_tuned_gives_no_answer(page, tmp_path):
    write(page, tmp_path, "task", 9.0, seeds=10, tuned=1)
    text = page.filled(table("task"), tmp_path)
    assert "No answer yet: 1 of 3 pieces of the tuning are done, and 10 of 10 seeds" in text
    assert "| `dsd` | 9.0000 (1 seed) |" in text and "Not run" not in text
    assert not page.read_all(tmp_path)


def test_a_task_that_has_not_run_says_so(page, tmp_path):
    assert "Not run yet." in page.filled(table("task"), tmp_path)


def test_the_figures_have_a_line_for_each_task_in_the_colour_of_its_verdict(
    page, tmp_path, monkeypatch
):
    for name, ours in {"better": 9.0, "same": 9.95, "worse": 11.0}.items():
        write(page, tmp_path, name, ours)
    figures = []
    new_panels = page.new_panels
    monkeypatch.setattr(
        page,
        "new_panels",
        lambda *size, **kw: figures.append(new_panels(*size, **kw)) or figures[-1],
    )
    found = page.read_all(tmp_path)
    page.draw_answers(found, tmp_path / "answers.png")
    page.draw_predictors(found, tmp_path / "predictors.png")
    axes = figures[0][1][0, 0]
    _, *lines = axes.lines
    assert [line.get_color() for line in lines[::2]] == ["tab:green", "tab:blue", "tab:red"]
    assert (tmp_path / "answers.png").stat().st_size > 1000
    assert [len(each.containers) for each in figures[1][1][0]] == [3, 3, 3]
    page.draw_other_regimes(page.RESULTS / "other-regimes.json.gz", tmp_path / "other.png")
    _, *lines = figures[2][1][0, 0].lines
    colours = [line.get_color() for line in lines[::2]]
    assert len(colours) == 20 and colours.count("tab:green") == 3 and colours.count("tab:red") == 2
