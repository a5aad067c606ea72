"""docs/results.md shows what the studies found, and says better only where it is shown."""

import importlib
import json
import pathlib
import sys

import pytest

from tests.helpers import pages

STUDIES = pages.ROOT / "benchmarks" / "studies"
ARMS = {"dense": "dense for 2 epochs", "llr": "dense, then slower", "DSD 0.3": "dense, then sparse"}


@pytest.fixture(scope="module")
def page():
    sys.path.insert(0, str(STUDIES))
    yield importlib.import_module("page")
    sys.path.remove(str(STUDIES))
    for name in ("page", "verdicts"):
        del sys.modules[name]


def write(folder: pathlib.Path, name, ours, seeds=5, missing=()):
    """Writes what a study of two controls near 10 and of DSD near `ours` leaves behind."""
    around = {"first dense": 12.0, "dense": 10.5, "llr": 10.0, "DSD 0.3": ours}
    runs = [
        {
            "seed": seed, "arm": arm, "validation": [11.0, value + 0.1 * (seed % 3)],
            "best_epoch": 1, "test_last": value + 1,
            "test_best": value + 0.01 * seed**2 * (arm < "a"),
            "num_updates": 1234, "start": "",
        }
        for seed in range(seeds) for arm, value in around.items() if (seed, arm) not in missing
    ]  # fmt: skip
    identity = {
        "task": name, "words": f"What {name} is", "metric": "error", "mode": "min",
        "keras": "3 on jax", "arms": ARMS, "variants": ["DSD 0.3"], "batch size": 32,
    }  # fmt: skip
    data = {"kind": "keras_dsd comparison", "identity": identity, "runs": runs}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(data))


def table(name):
    return f"# Words\n\n<!-- {name} -->\nold\n<!-- end -->\n\nMore words.\n"


def test_the_page_shows_what_the_files_hold(page):
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.filled(text, page.RESULTS) == text, "run python benchmarks/studies/page.py"


@pytest.mark.parametrize(
    ("ours", "word"), [(9.0, "**better**"), (10.0, "no difference shown"), (11.0, "worse")]
)
def test_the_summary_says_what_is_shown(page, tmp_path, ours, word):
    write(tmp_path, "task", ours)
    text = page.filled(table("task") + table("summary"), tmp_path)
    (row,) = [line for line in text.splitlines() if line.startswith("| [task](#task)")]
    assert row.endswith(f"| {word} |")
    assert "| llr | 10 ± 0 | DSD 0.3 |" in row, "the control is the best one"


def test_a_table_is_written_in_its_place_and_words_stay(page, tmp_path):
    write(tmp_path, "task", 9.0)
    text = page.filled(table("task") + table("summary"), tmp_path)
    assert text.count("# Words\n") == text.count("More words.\n") == 2
    assert "old" not in text
    assert "What task is, batches of 32." in text
    assert "1,234 updates" in text
    assert page.filled(text, tmp_path) == text


def test_seeds_that_lack_an_arm_do_not_count(page, tmp_path):
    write(tmp_path, "task", 9.0, missing={(4, "llr")})
    assert "of 4 seeds" in page.filled(table("task"), tmp_path)


def test_a_task_without_a_table_is_refused(page, tmp_path):
    write(tmp_path, "task", 9.0)
    with pytest.raises(ValueError, match="none for \\['task'\\]"):
        page.filled(table("other"), tmp_path)


def test_the_figure_has_a_line_for_each_task_in_the_colour_of_its_verdict(
    page, tmp_path, monkeypatch
):
    for name, ours in {"better": 9.0, "same": 10.0, "worse": 11.0}.items():
        write(tmp_path, name, ours)
    figures = []
    new_figure = page.new_figure
    monkeypatch.setattr(
        page, "new_figure", lambda *size: figures.append(new_figure(*size)) or figures[-1]
    )
    page.draw(page.read_all(tmp_path), tmp_path / "drawn" / "gains.png")
    ((_, axes),) = figures
    _, *lines = axes.lines
    assert [line.get_color() for line in lines[1::2]] == ["tab:green", "tab:gray", "tab:red"]
    assert (tmp_path / "drawn" / "gains.png").stat().st_size > 1000
