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


@needs_browser
def test_the_browser_tells_of_faults(tmp_path):
  page = tmp_path / 'x.html'
  page.write_text('<div style="width:2000px">x</div><script>console.error("y"); z()</script>')
  with browser.opened(PROGRAM) as shown:
    shown.open(page, 390)
    assert shown.ask('document.documentElement.scrollWidth') > 390
    assert len(shown.complaints) >= 2
