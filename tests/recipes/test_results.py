"""The table of a recipe: which runs are in it, what they say, and by how much DSD gained."""

import copy
import json

import pytest

from recipes.results import Record, Table, check_alike, complete_in

pytestmark = pytest.mark.only_on("tensorflow")

SETTINGS = {"recipe": "toy", "dense": "2"}


def result(arm, seed, *errors):
    names = ["dense", "sparse", "re-dense"]
    pruned = {"sparse": 0.3 if arm == "dsd" else 0.0}
    return {
        "settings": {**SETTINGS, "arm": arm, "seed": seed},
        "parts": {
            name: {
                "metrics": {"error": error, "score": 100 - error},
                "sparsity": pruned.get(name, 0),
            }
            for name, error in zip(names[-len(errors) :], errors, strict=True)
        },
        "is_complete": True,
    }  # fmt: skip


BETTER = {"error": "min", "score": "max"}
SEVERAL = [
    result("dsd", 0, 20.0, 18.0, 15.0), result("dsd", 1, 22.0, 19.0, 17.0),
    result("llr", 0, 20.0, 18.5, 16.0), result("dense", 1, 22.0, 18.5, 14.0),
]  # fmt: skip


def test_rows_and_gains():
    rows = Table(SEVERAL, BETTER).rows
    assert {row: cells["error"] for row, cells in rows.items()} == {
        "Baseline": {"0": 20.0, "1": 22.0},
        "Sparse (30%)": {"0": 18.0, "1": 19.0},
        "DSD": {"0": 15.0, "1": 17.0},
        "LLR": {"0": 16.0},
        "Dense": {"1": 14.0},
        "Gain over the baseline, absolute": {"0": 5.0, "1": 5.0},
        "Gain over the baseline, relative": {"0": 25.0, "1": pytest.approx(100 * 5 / 22)},
        "Gain over LLR, absolute": {"0": 1.0},
        "Gain over Dense, absolute": {"1": -3.0},
    }
    assert rows["DSD"]["score"] == {"0": 85.0, "1": 83.0}
    assert rows["Gain over the baseline, absolute"]["score"] == {"0": 5.0, "1": 5.0}
    assert rows["Gain over the baseline, relative"]["score"]["0"] == 100 * 5 / 80
    assert rows["Gain over Dense, absolute"]["score"] == {"1": -3.0}


def test_as_markdown():
    lines = Table(SEVERAL, BETTER).to_markdown().splitlines()
    assert len({*map(len, lines)}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["", "error", "score", "seeds"]
    assert ["DSD", "16.00 ± 1.41", "84.00 ± 1.41", "2"] in cells
    assert ["LLR", "16.00", "84.00", "1"] in cells


def test_nothing_has_no_sign():
    alike = [result("dsd", 0, 1.001), result("llr", 0, 1.0)]
    assert "-" not in Table(alike, {"error": "min"}).to_markdown().splitlines()[-1]


def test_what_is_missing_has_no_row():
    assert list(Table([result("llr", 0, 1.0, 1.0, 1.0)], BETTER).rows) == ["LLR"]
    other_seed = [SEVERAL[0], result("llr", 5, 1.0, 1.0, 1.0)]
    assert "Gain over LLR, absolute" not in Table(other_seed, BETTER).rows
    from_trained = [result("dsd", 0, 18.0, 15.0)]
    assert list(Table(from_trained, BETTER).rows) == ["Sparse (30%)", "DSD"]


def test_a_trained_model_is_the_baseline_where_training_starts_with_one():
    begun = copy.deepcopy(SEVERAL[0])
    begun["parts"] = {"start" if k == "dense" else k: v for k, v in begun["parts"].items()}
    assert Table([begun], BETTER).rows["Baseline"]["error"] == {"0": 20.0}


def test_no_error_at_all_has_no_relative_gain():
    rows = Table([result("dsd", 0, 0.0, 0.0, 0.0)], BETTER).rows
    assert rows["Gain over the baseline, relative"]["error"] == {"0": 0.0}


def test_runs_that_are_not_done_are_not_in_it_and_others_are_refused(tmp_path):
    for index, each in enumerate(SEVERAL):
        folder = tmp_path / f"seed-{index}" / each["settings"]["arm"]
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps(each | {"is_complete": index != 1}))
    found = complete_in(tmp_path)
    assert [each["settings"]["arm"] for each in found] == ["dsd", "llr", "dense"]
    check_alike(tmp_path, SETTINGS | {"arm": "llr", "seed": 7})
    with pytest.raises(ValueError, match=r"seed-0.dsd: dense='2'. Received: dense='3'. Give the"):
        check_alike(tmp_path, SETTINGS | {"arm": "llr", "seed": 7, "dense": "3"})


def test_a_record_resumes_and_refuses_other_settings(tmp_path):
    path = tmp_path / "seed-0" / "dsd" / "results.json"
    Record(path, SETTINGS).end_part("dense", metrics={"error": 3.0})
    assert Record(path, SETTINGS).result["parts"] == {"dense": {"metrics": {"error": 3.0}}}
    assert [each.name for each in path.parent.iterdir()] == ["results.json"]
    for other in (SETTINGS | {"dense": "3"}, SETTINGS | {"more": 1}, {"recipe": "toy"}):
        with pytest.raises(ValueError, match=r"Expected .*Received: .*another --workdir"):
            Record(path, other)
    assert not Record(path, SETTINGS).result["is_complete"]
