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


def test_numbers_stay_numbers():
  assert sheets.text(('a', 'b'), [(-0.5, '-0.5')]) == "a,b\n-0.5,'-0.5\n"


@pytest.mark.parametrize(
  ('name', 'shown'),
  [
    ('a|b\n# c', r'a\|b # c'),
    ('<script>x</script>', '&lt;script&gt;x&lt;/script&gt;'),
    ('![x](https://y/z)', r'!\[x\](https://y/z)'),
    ('`*x\\', r'\`\*x\\'),
    ('\x1b[2J\ud800', r'\\x1b\[2J\\ud800'),
    ('tv_monitor (猫) 5 %', 'tv_monitor (猫) 5 %'),
  ],
)
def test_a_name_in_markdown_is_text(name, shown):
  assert sheets.markdown(name) == shown


@pytest.mark.parametrize('name', ['-x=y', "'tis", "'=x", "''", ' =x', '=1', 'plain'])
def test_a_cell_is_read_as_what_it_was_made_of(name):
  (row,) = list(csv.reader(io.StringIO(sheets.text(('id',), [(name,)]))))[1:]
  assert sheets.own(row[0]) == name
  assert sheets.own("'tis") == "'tis"  # As versions before wrote it.
