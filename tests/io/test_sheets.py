"""A table for people holds names, and no formulas."""

import csv
import io

import pytest

from pnoc_jax.io import sheets


@pytest.mark.parametrize('name', ['=1+1', '+x', '-x', '@SUM(A1)', ' =x', '=HYPERLINK("u","x")'])
def test_a_cell_that_would_be_computed_is_text(name):
  text = sheets.text(('file', 'why'), [(name, 'x')])
  assert list(csv.reader(io.StringIO(text)))[1] == [f"'{name}", 'x']


def test_other_cells_stay_as_they_are():
  rows = [['a.png', 'it has "quotes", commas and 猫'], ['b=c', '5 - 3']]
  assert list(csv.reader(io.StringIO(sheets.text(('a', 'b'), rows))))[1:] == rows
  assert sheets.text(('a',), [['x\x1b[2J']]) == 'a\nx\\x1b[2J\n'
