"""The pages in a browser, on a wide screen and on a telephone."""

import pytest

from pnoc_jax.report import build
from tests.report import browser, toy_run

PROGRAM = browser.find()
needs_browser = pytest.mark.skipif(
  PROGRAM is None, reason='no Chromium is installed: the pages are not opened'
)


@pytest.fixture(scope='module')
def pages(tmp_path_factory):
  """The page of a run with a long name, and that of a comparison."""
  folder = tmp_path_factory.mktemp('run')
  toy_run.write_run(folder)
  toy_run.write_refinement(folder)
  config = (folder / 'config.json').read_text().replace('toy run', 'long_' * 40)
  (folder / 'config.json').write_text(config)
  page = build.build(folder, toy_run.STAGES, open_source=toy_run.open_source)
  runs, output = [('a', folder), ('b' * 90, folder)], folder / 'both.html'
  both = build.build_comparison(runs, output, toy_run.STAGES, open_source=toy_run.open_source)
  return page, both


@needs_browser
def test_pages_fit_the_screen_and_say_nothing_on_the_console(pages):
  with browser.opened(PROGRAM) as shown:
    for page in pages:
      for width in (390, 1400):
        shown.open(page, width)
        shown.ask("document.querySelectorAll('details').forEach(x => x.open = true)")
        assert shown.ask('document.documentElement.scrollWidth') <= width
        # All pictures are there, and none is drawn at no size.
        assert shown.ask('[...document.images].every(x => x.naturalWidth > 0)')
    assert not shown.complaints
    shown.open(pages[0], 1400)
    top = shown.ask("document.querySelector('.wall img').getBoundingClientRect().top")
    below = shown.ask("document.querySelector('.wall').getBoundingClientRect().bottom")
    height = shown.ask('document.documentElement.scrollHeight')
  # Pictures come first; eight images through ten stations take about two screens.
  assert top < 400 and below < 1900 and height < 6000


_ROWS = """[...document.querySelectorAll('.wall .strip')].map(row => {
  const shown = [...row.children].map(x => x.getBoundingClientRect());
  return {
    width: shown[0].width,
    lines: new Set(shown.map(x => x.top)).size,
    gaps: shown.slice(1).map((x, i) => x.left - shown[i].right),
  };
})"""


@needs_browser
@pytest.mark.parametrize('refined', [True, False])
def test_pictures_of_a_row_stand_side_by_side_in_columns_that_all_rows_have(tmp_path, refined):
  toy_run.write_run(tmp_path)
  if refined:
    toy_run.write_refinement(tmp_path)
    # One image that a stage has not made.
    (tmp_path / 'pseudo_masks' / 'train' / 'img3.png').unlink()
  page = build.build(tmp_path, toy_run.STAGES, open_source=toy_run.open_source)
  with browser.opened(PROGRAM) as shown:
    shown.open(page, 1400)
    rows = shown.ask(_ROWS)
    assert {row['lines'] for row in rows} == {1}
    assert len({len(row['gaps']) for row in rows}) == 1 + refined
    assert len({round(row['width']) for row in rows}) == 1
    # Of few pictures none is far from the next, and of many none is small.
    assert all(0 < gap < 8 for row in rows for gap in row['gaps'])
    assert 105 < rows[0]['width'] < 140
    shown.open(page, 390)
    assert all(60 < row['width'] < 140 for row in shown.ask(_ROWS))


@needs_browser
def test_the_browser_tells_of_faults(tmp_path):
  page = tmp_path / 'x.html'
  page.write_text('<div style="width:2000px">x</div><script>console.error("y"); z()</script>')
  with browser.opened(PROGRAM) as shown:
    shown.open(page, 390)
    assert shown.ask('document.documentElement.scrollWidth') > 390
    assert len(shown.complaints) >= 2
