"""The page of the studies: tables, figures and words, of made-up records and of those kept."""

import dataclasses
import math
import re

import pytest

from tests.helpers import benchmarks

pytest.importorskip("scipy", reason="needs SciPy")

NAMES = ("page", "filling", "protocol", "records")
# The mean test loss of each arm; the best unpruned arm on tuning seeds is "one run".
LOSSES = {
    "first dense": 1.2, "same rates": 1.1, "same rates, averaged": 1.1, "one run": 1.0,
    "low rate": 1.2, "first rate": 1.2, "pruned": 1.05, "pruned in one run": 1.1, "dsd": 0.9,
    "dsd in one run": 1.25, "dsd, random masks": 1.0, "dsd, iterated": 1.0,
}  # fmt: skip
PAGE = "".join(f"<!-- {name} -->\nold\n<!-- end -->\n" for name in ("answers", "good", "bad"))


def cells_by_task(table):
    """The cells of each row of a table of tasks, by the name of the task."""
    return {line.split("]")[0][3:]: line.strip("| ").split(" | ") for line in table.splitlines()
            if line.startswith("| [")}  # fmt: skip


@pytest.fixture(scope="module")
def studies():
    with benchmarks.imported(benchmarks.STUDIES, *NAMES) as found:
        yield found


@pytest.fixture
def write(studies, tmp_path):
    """Writes the records of a task, of so many seeds, in which DSD has a mean test loss."""
    protocol, base = studies["protocol"], (0.1, 1e-4)
    plain = (*protocol.PLAIN, protocol.FIRST)

    def run(seed, arm, loss, noise):
        if seed >= protocol.FIRST_TUNING_SEED and math.isnan(loss):
            loss = LOSSES[arm]
        values = (*[loss + 1] * 4, loss + noise)
        setting = protocol.Setting(1e-4, 0.1, None if arm in plain else 0.4)
        test = () if seed >= protocol.FIRST_TUNING_SEED else values
        return protocol.Run(
            seed, arm, setting, values, test, (*values[:4], loss / 2), (0.2, 0.1), 60, 3600.0
        )

    def write(name, seeds, dsd=0.9, arms=tuple(LOSSES), tuned=3, **rates):
        identity = {
            "weights": 1000, "task": name, "words": "A task", "data": "a file", "tuning seeds": 3,
            "seeds": 30, "bases": [[*base]],
            "lengths": {"dense": 3, "sparse": 1, "redense": 1, **rates},
        }  # fmt: skip
        kept = studies["records"].Records(tmp_path / f"{name}.json.gz", identity)
        losses = {**{arm: LOSSES[arm] for arm in arms}, "dsd": dsd}
        for seed in [*range(1000, 1000 + tuned), *range(seeds)]:
            noise = 0.01 * (-1) ** seed  # with a mean of zero
            kept.add([run(seed, arm, loss, noise * (arm == "dsd")) for arm, loss in losses.items()],
                     base)  # fmt: skip
        return tmp_path

    return write


def test_below_ten_complete_seeds_nothing_is_answered_or_drawn(studies, write):
    page = studies["page"]
    folder = write("good", 9)
    write("bad", 12, arms=[arm for arm in LOSSES if arm != "dsd, iterated"])
    assert page.read_all(folder) == {}
    text = page.filled(PAGE, folder)
    assert "No task has enough seeds" in text and "figures/" not in text
    assert text.count("No answer yet") == 2 and "dsd` minus" not in text
    assert page.in_words({}) == "no task has the 10 seeds yet that an answer takes"


def test_a_task_that_is_still_tuned_or_has_not_run_says_so(studies, write):
    page = studies["page"]
    folder = write("good", 10, tuned=1)
    assert page.read_all(folder) == {}
    text = page.filled(PAGE, folder)
    assert "No answer yet: 1 of 3 pieces of the tuning are done, and 10 of 30 seeds" in text
    assert "| `dsd` | 0.9100 (1 seed) |" in text and text.count("Not run yet.") == 1


def test_a_task_without_a_table_is_refused(studies, write):
    with pytest.raises(ValueError, match=r"none for \['other'\]"):
        studies["page"].filled(PAGE, write("other", 10))


def test_ten_seeds_answer_both_questions_in_table_words_and_figures(studies, write, tmp_path):
    page = studies["page"]
    write("good", 10)
    folder = write("bad", 12, dsd=1.2)
    found = page.read_all(folder)
    assert {name: each.num_seeds for name, each in found.items()} == {"good": 10, "bad": 12}
    assert {each.unpruned.control for each in found.values()} == {"one run"}
    rows = {line.split("]")[0][3:]: line for line in page.answers(found).splitlines()
            if line.startswith("| [")}  # fmt: skip
    cells = [cell.strip() for cell in rows["good"].split("|")[2:-1]]
    assert cells[:3] == ["10 of 30, so far", "`dsd`", "`one run`"] and cells[7] == "`pruned`"
    assert cells[5] == cells[-2] == "**better**" and rows["bad"].count("worse") == 2
    assert cells[-1] == "10 of 10"
    assert cells[3].startswith("\N{MINUS SIGN}10 (") and cells[8].startswith("\N{MINUS SIGN}14 (")
    words = page.in_words(found)
    assert words.startswith(
        "2 tasks have 10 seeds or more; against the best training without pruning, DSD is better "
        "in 1 (by 10 %), worse in 1 (by 20 %), equal within 1 % in 0, and nothing is shown in 0; "
    )
    inline = "5. **Words**: <!-- protocol -->old<!-- end --> and on.\n"
    assert page.filled_in_words(inline, folder) == inline.replace("old", words)
    text = page.filled(PAGE, folder)
    assert text.count("![") == 2 and "**10 seeds of 30: it is not complete**" in text
    assert "A task. Data: a file." in text and "; 60 updates in every arm." in text
    assert "old" not in text and page.filled(text, folder) == text


def test_each_task_rules_out_gains_beyond_its_interval(studies, write):
    page = studies["page"]
    write("good", 10)
    found = page.read_all(write("bad", 12, dsd=1.2))
    assert "No task" in page.ruled_out({})
    rows = cells_by_task(page.ruled_out(found))
    for name, each in found.items():
        expected = max(0.0, -100 * each.unpruned.best.low / each.unpruned.mean)
        assert float(rows[name][4]) == float(f"{expected:.2g}")
        # Its last training loss is half of its last validation loss.
        assert rows[name][1:4] == ["1,000", "0.5", "2"]
    assert rows["bad"][4] == "0"


def test_dsd_is_measured_against_each_control(studies, write):
    page = studies["page"]
    write("good", 10)
    found = page.read_all(write("bad", 12, dsd=1.2))
    assert "No task" in page.controls({})
    rows = cells_by_task(page.controls(found))
    # 0.9 and 1.2 of "dsd" minus 1.2 of three controls, 1.1 of "same rates" and 1.0 of "one run";
    # 1.25 of "dsd in one run" minus "one run", and that minus the first dense phase.
    for name, cells in {
        "good": ["-25"] * 3 + ["-18", "-10"],
        "bad": [""] * 3 + ["+9.1", "+20"],
    }.items():
        mark = {"good": "**", "bad": "_"}[name]
        for cell, expected in zip(rows[name][1:6], cells, strict=True):
            assert not expected or cell.replace("\N{MINUS SIGN}", "-").startswith(
                f"{mark}{expected} ("
            )
            assert cell.endswith(mark) == bool(expected)
        within, longer = (cell.replace("\N{MINUS SIGN}", "-") for cell in rows[name][6:])
        assert within.startswith("+25 (") and longer.startswith("-17 (")
    protocol = studies["protocol"]
    words = page.controls_in_words(found, "dsd", [protocol.FIRST, protocol.SINGLE])
    assert words == (
        "of 2 tasks it is better than the network before pruning in 1 (worse in 0), than one "
        "conventional run in 1 (worse in 1)"
    )
    # The error rate of each run is 20 % at its chosen epoch.
    assert page.errors_in_words(found) == (
        "of the 2 tasks with an error rate, it is better in 0 and worse in 0"
    )


def test_a_task_at_other_learning_rates_has_a_table_apart_and_is_not_counted(studies, write):
    page = studies["page"]
    write("good", 10)
    folder = write("good-paper-rates", 10, sparse_lr=0.1, redense_lr=0.01)
    found = page.read_all(folder)
    assert [*found] == ["good", "good-paper-rates"] and [*page.counted(found)] == ["good"]
    names = ("answers", "controls", "ruled-out", "paper-rates", *found)
    text = page.filled("".join(f"<!-- {name} -->\n<!-- end -->\n" for name in names), folder)
    tables = [cells_by_task(part) for part in text.split("<!-- end -->")]
    assert [[*table] for table in tables[:4]] == [["good"]] * 3 + [["good-paper-rates"]]
    assert text.count("dense again, from 0.1 and 0.01 of the first learning rate;") == 1
    assert page.filled_in_words("<!-- protocol -->old<!-- end -->", folder).startswith(
        "<!-- protocol -->1 task has"
    )


def test_a_task_says_in_how_many_seeds_the_chosen_epoch_of_dsd_has_regrown_weights(studies, write):
    page = studies["page"]
    folder = write("good", 10)
    text = page.filled(PAGE, folder)
    assert "has regrown weights in" not in text  # in all, as the first table says
    records = page.load(folder / "good.json.gz")
    test = (9.0, 9.0, 9.0, 9.0, 2.0)
    for index, run in enumerate(records.runs):
        if run.arm == "dsd" and run.seed < 4:  # the last of five epochs is after regrowth
            best = 0 if run.seed == 0 else 3
            validation = tuple(1.0 if epoch == best else test[epoch] for epoch in range(5))
            records.runs[index] = dataclasses.replace(run, validation=validation, test=test)
    records.write()
    found = page.read_all(folder)["good"]
    assert found.num_regrown == 6
    assert found.regrown.best.mean == pytest.approx((4 * 2.0 + 6 * 0.9) / 10 - 1.0, abs=0.01)
    text = page.filled(PAGE, folder)
    assert "has regrown weights in 6 of 10 seeds, and is before pruning in 1." in text


def test_masks_alone_at_other_settings_are_marked(studies, write):
    page, protocol = studies["page"], studies["protocol"]
    found = page.read_all(write("good", 10))
    assert "†" not in page.controls(found)
    records, other = found["good"].records, protocol.Setting(1e-3, 0.1)
    for index, run in enumerate(records.runs):
        if run.arm == "same rates":
            records.runs[index] = dataclasses.replace(run, setting=other)
    assert page.controls(found).count(" † | ") == 1
    assert "; tuning chose other settings for each." in page.of_task(found["good"])


def colours(axes):
    """The colours of the rows of tasks, from the top."""
    return [line.get_color() for line in axes.lines if line.get_marker() == "o"]


def test_figures_have_a_row_a_task_and_a_point_a_task_in_each_panel(
    studies, write, tmp_path, monkeypatch
):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    page, drawn, new = studies["page"], [], studies["page"].new_panels
    monkeypatch.setattr(page, "new_panels", lambda *a, **o: drawn.append(new(*a, **o)) or drawn[-1])
    write("good", 10)
    write("same", 10, dsd=1.0)
    found = page.read_all(write("bad", 10, dsd=1.2))
    assert page.answers(found).count("equal within 1 %") == 2  # in its row, and below the figure
    page.draw_answers(found, tmp_path / "answers.png")
    page.draw_predictors(found, tmp_path / "predictors.png")
    assert all((tmp_path / f"{name}.png").stat().st_size for name in ("answers", "predictors"))
    page.draw_other_regimes(page.RESULTS / "other-regimes.json.gz", tmp_path / "other.png")
    page.draw_longer_training(found, tmp_path / "longer.png")
    (_, questions), (_, predictors), (_, earlier), (_, longer) = drawn
    for axes, control in zip(questions[0], ("one run", "pruned"), strict=True):
        means = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
        assert len(means) == 3
        expected = [100 * (dsd / LOSSES[control] - 1) for dsd in (1.2, 0.9, 1.0)]
        assert means == pytest.approx(expected, abs=1e-3)
    labels = [text.get_text() for text in questions[0, 0].get_yticklabels()]
    assert labels == ["bad (10 seeds)", "good (10 seeds)", "same (10 seeds)"]
    assert colours(questions[0, 0]) == ["tab:red", "tab:green", "tab:blue"]
    every = colours(earlier[0, 0])
    assert len(every) == 20 and every.count("tab:green") == 3 and every.count("tab:red") == 2
    for axes, place in zip(predictors[0], (0.5, 2.0, 1000), strict=True):
        places = [lines.lines[0].get_xdata()[0] for lines in axes.containers]
        assert places == pytest.approx([place] * 3, rel=1e-3)
    points = [lines.lines[0].get_xydata()[0] for lines in longer[0, 0].containers]
    first = LOSSES["first dense"]
    for (place, height), dsd in zip(points, (1.2, 0.9, 1.0), strict=True):
        assert place == pytest.approx(100 * (LOSSES["one run"] / first - 1), abs=1e-3)
        assert height == pytest.approx(100 * (dsd / first - 1), abs=1e-3)


def test_a_seed_that_fails_is_reported(studies, write):
    page = studies["page"]
    folder = write("good", 10, dsd=math.nan)
    found = page.read_all(folder)
    assert found["good"].num_seeds == 10
    text = page.filled(PAGE, folder)
    assert "none: a seed failed" in text and "- Failed: `dsd` of seed 9" in text
    assert "nan" not in text


def test_the_pages_show_what_the_files_hold(studies):
    page = studies["page"]
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.filled(text, page.RESULTS) == text, "run python benchmarks/studies/page.py"
    text = page.SHORT_PAGE.read_text(encoding="utf-8")
    assert page.filled_in_words(text, page.RESULTS) == text, "run python benchmarks/studies/page.py"
    # At the start of a line, a comment would end the list.
    assert "<!-- protocol -->" in text and not re.search(r"^\s*<!--", text, re.MULTILINE)


def test_what_is_probed_is_shown_and_neither_chosen_nor_counted(studies, write):
    page, protocol = studies["page"], studies["protocol"]
    folder = write("good", 10)
    records = page.load(folder / "good.json.gz")
    (one,) = [run for run in records.tuning if (run.seed, run.arm) == (1000, "one run")]
    better = dataclasses.replace(one, setting=protocol.Setting(1e-4, 0.3), validation=(0.5, 0.7))
    records.add([better])
    text = page.filled(PAGE, folder)
    assert ": 1 at 0.1, L2 0.0001; 0.5 at 0.3, L2 0.0001." in text
    assert page.read_all(folder)["good"].num_seeds == 10
    assert protocol.chosen_setting(page.load(folder / "good.json.gz").tuning, "one run").lr == 0.1
    records.runs = records.tuning
    assert "**No answer yet: 3 of 3 pieces" in page.tuning(records)
