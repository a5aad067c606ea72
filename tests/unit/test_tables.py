"""Tables within 100 columns, with the tail folded."""

import pytest

from keras_dsd.utils.tables import Table, Tabled, draw, percent


def table(num_rows=3, num_columns=3, name="row", cell="1234567", **parts):
    head = ["weight", *(f"c{i}" for i in range(1, num_columns))]
    rows = [[f"{name}{i}", *[cell] * (num_columns - 1)] for i in range(num_rows)]
    return Table(head, rows, parts.pop("totals", ()), (0,), **parts)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0.00%"), (0.125, "12.50%"), (0.99999, "100.0%"), (1, "100.0%"), (0.0123456, "1.23%")],
)
def test_percent_has_at_most_four_digits(share, text):
    assert percent(share) == text


def test_rows_after_the_first_are_folded():
    lines = draw(table(1160), 20).splitlines()
    assert len(lines) == 2 + 20 + 1
    assert lines[21].split() == ["row19", "1234567", "1234567"] and lines[22] == "… and 1,140 more"
    assert draw(table(20), 20).splitlines()[-1].split()[0] == "row19"
    assert len(draw(table(1160), None).splitlines()) == 1162
    assert draw(table(5), 0).splitlines()[-1] == "… and 5 more"


def test_totals_stand_below_a_rule_and_lines_below_them():
    lines = draw(table(1, totals=[["total", "9", ""]], lines=["x " * 60 + "end"])).splitlines()
    assert lines[4].split() == ["total", "9"] and {*lines[3]} == {"-"}
    assert lines[5].startswith("x x") and lines[6].startswith("  x") and lines[6].endswith("end")


def test_columns_that_do_not_fit_continue_below_with_the_names():
    lines = draw(table(2, 25, name="block/conv/kernel")).splitlines()
    assert max(map(len, lines)) <= 100
    heads = [line.split() for line in lines if line.startswith("weight")]
    assert [name for head in heads for name in head[1:]] == [f"c{i}" for i in range(1, 25)]
    assert len(heads) == 3 and sum(line.startswith("block/conv/kernel1") for line in lines) == 3


def test_a_long_name_keeps_its_end_and_all_numbers_stay():
    (row,) = draw(table(1, 6, name="a" * 200 + "/kernel", cell="1,234,567,890")).splitlines()[2:]
    name, *cells = row.split()
    assert name.startswith("…a") and name.endswith("/kernel0") and cells == ["1,234,567,890"] * 5
    assert len(row) == 100


def test_a_summary_is_aligned_and_wraps_below_its_text():
    lines = draw(table(summary=[("a", "b " * 60), ("longer", "c")])).splitlines()
    assert lines[0].startswith("a       b b") and lines[1].startswith("        b")
    assert lines[2:4] == ["longer  c", ""] and lines[4].startswith("weight")
    assert max(map(len, lines)) <= 100


class Result(Tabled):
    def _table(self):
        return table(30)


def test_the_number_of_rows_is_checked():
    assert Result().render() == str(Result()) == draw(table(30), 20)
    assert len(Result().render(max_rows=None).splitlines()) == 32
    with pytest.raises(ValueError, match="Expected `max_rows` to be"):
        Result().render(-1)
    with pytest.raises(TypeError, match="`max_rows` to be a whole number of rows"):
        Result().render(2.5)
