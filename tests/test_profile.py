"""What a table's columns hold, in a few numbers."""

import polars as pl

from alpacafarm_core.profile import brief, profiled


def only(column):
    """The statistics of a table of one column."""
    (found,) = profiled(pl.DataFrame({"it": column}))
    return found


def test_numbers_have_their_least_median_and_most():
    found = only([3.0, 1.0, None, 2.0, 2.0])
    assert (found.type, found.nulls, found.distinct) == ("number", 1, 3)
    assert (found.measured, found.least, found.median, found.most) == ("value", 1.0, 2.0, 3.0)
    assert found.commonest is None


def test_texts_have_their_lengths_and_the_commonest_of_them():
    found = only(["ab", "", "ab", "längst"])
    assert (found.type, found.nulls, found.distinct) == ("text", 0, 3)
    assert (found.measured, found.least, found.median, found.most) == ("characters", 0, 2, 6)
    assert (found.commonest, found.times) == ("ab", 2)


def test_of_equally_frequent_texts_the_first_in_order_is_named():
    assert only(["b", "a"]).commonest == "a" == only(["a", "b"]).commonest


def test_flags_are_counted_and_lists_measured_in_items():
    assert only([True, None, False, True])[1:4] == ("flag", 1, 2)
    assert only([True, None, False, True])[-2:] == ("true", 2)
    found = only([[1, 2], [], [7]])
    assert (found.type, found.distinct, found.measured) == ("list", None, "items")
    assert (found.least, found.median, found.most) == (0, 1, 2)


def test_what_is_not_finite_counts_as_nothing():
    found = only([float("nan"), float("inf"), 4.0])
    assert (found.nulls, found.distinct, found.most) == (2, 1, 4.0)


def test_an_empty_table_and_an_empty_column_have_no_figures():
    assert profiled(pl.DataFrame({"it": []}, schema={"it": pl.String}))[0].median is None
    found = only([None, None])
    assert (found.nulls, found.distinct, found.least, found.commonest) == (2, 0, None, None)


def test_a_column_may_be_called_as_a_figure_is():
    names = ["times", "value", "nulls"]
    found = profiled(pl.DataFrame({name: ["a"] for name in names}))
    assert [each.column for each in found] == names


def test_a_long_value_is_cut_to_one_line():
    assert brief("a\n b" + "c" * 90) == "a b" + "c" * 56 + "…"


def test_a_table_that_is_read_column_by_column_gives_the_same():
    rows = pl.DataFrame({"text": ["a", "b"], "number": [1, 2]})
    assert profiled(rows.lazy()) == profiled(rows)
