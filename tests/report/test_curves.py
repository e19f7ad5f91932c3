"""Charts: where they draw what, and what they make of odd numbers and names."""

import re

import numpy as np

from pnoc_jax.report import curves
from tests.report import toy_run


def _chart(series, **how):
  return curves.chart(series, alt='alt', xlabel='epoch', ylabel='%', **how)


def _points(svg):
  return [
    np.array([pair.split(',') for pair in line.split()], float)
    for line in re.findall('<polyline points="([^"]*)"', svg)
  ]


def _marks(svg, anchor):
  """(value, x, y) of the numbers at an axis."""
  found = re.findall(rf'<text x="([\d.]+)" y="([\d.]+)" text-anchor="{anchor}">([-\d.e]+)<', svg)
  return np.array([(value, x, y) for x, y, value in found], float)


def test_lines_lie_where_the_numbers_at_the_axes_say():
  x, y = np.array([1.0, 2.0, 5.0]), np.array([10.0, 40.0, 25.0])
  svg = _chart({'a': (x, y), 'b': (x, 2 * y)}, points=True, mark_best=True)
  across, up = _marks(svg, 'middle'), _marks(svg, 'end')
  first, second = _points(svg)
  np.testing.assert_allclose(np.interp(x, across[:, 0], across[:, 1]), first[:, 0], atol=0.2)
  rows = np.polyfit(up[:, 0], up[:, 2] - 4, 1)
  np.testing.assert_allclose(np.polyval(rows, y), first[:, 1], atol=0.2)
  np.testing.assert_allclose(np.polyval(rows, 2 * y), second[:, 1], atol=0.2)
  # A dot at each value; a ring at the best of each line.
  assert svg.count('r="2.4"') == 6 and svg.count('r="5.5"') == 2
  assert f'cx="{first[1, 0]:.1f}" cy="{first[1, 1]:.1f}" r="5.5"' in svg


def test_odd_numbers_are_drawn_in_the_frame():
  for values in ([3.0], [1e100, -1e100], [0.0, 0.0], [1.7e-4, 1.9e-4], []):
    svg = _chart({'a': (range(len(values)), values)})
    toy_run.Checker(svg)
    assert 'nan' not in svg and 'inf' not in svg
    points = _points(svg)[0].reshape(-1, 2)
    assert ((points >= 0) & (points <= 460)).all()
    assert all(len(text) <= 7 for text in re.findall('text-anchor="end">([^<]*)<', svg))
  assert '1.75e-4' in _chart({'a': ([0, 1], [1.7e-4, 1.9e-4])})


def test_long_series_are_drawn_as_means_of_blocks():
  (points,) = _points(_chart({'a': (np.arange(1000), np.arange(1000) % 2)}, max_points=100))
  assert len(points) == 100 and np.ptp(points[:, 1]) == 0


def test_lines_differ_in_colour_and_dash_and_names_are_no_markup():
  names = ('$\\frac{', '_hidden', '</svg>', '\x1b[2J')
  svg = _chart({name: ([0, 1], [0, i]) for i, name in enumerate(names)})
  toy_run.Checker(svg)
  assert '$\\frac{' in svg and '_hidden' in svg and '&lt;/svg&gt;' in svg and r'\x1b[2J' in svg
  styles = re.findall('fill="none" (stroke[^/]*)/>', svg)
  assert len(set(styles)) == 4 and sum('dasharray' in style for style in styles) == 3
  assert 'class="legend' not in _chart({'a': ([0, 1], [0, 1])})


def test_bars_are_as_high_as_their_counts():
  svg = curves.bars([0, 2, 4], 'alt', height=60)
  toy_run.Checker(svg)
  assert re.findall(' height="([^"]*)"', svg) == ['0.0', '30.0', '60.0']
