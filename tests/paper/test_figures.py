"""The paper's figures of what finished runs have left."""

import shutil

import numpy as np
import pytest

from pnoc_jax.io import images, records
from pnoc_jax.paper import command, figures, rows, tables
from pnoc_jax.report import examples
from pnoc_jax.stages.common import judge_history
from tests.paper import recorded
from tests.report import toy_run


def test_figures_are_drawn_from_what_is_there(tmp_path):
  toy_run.write_run(tmp_path / 'a')
  toy_run.write_refinement(tmp_path / 'a')
  toy_run.write_run(tmp_path / 'b', quality=0.3)
  runs = [command.files.read_run(tmp_path / x, toy_run.STAGES) for x in 'ab']
  config = recorded.make(())
  config.predictions.splits = ('train',)
  for name in 'ab':
    _judge(tmp_path / name / 'generator', range(1, 4))
  pnoc, poc = (next(r for r in rows.MAPS if r.name == name) for name in ('pnoc', 'poc'))
  found = [(pnoc, config, runs), (poc, config, [None, runs[1]])]
  look = tables.Look(config, found, recorded.toy, pytest.fail)
  for number, figure in figures.FIGURES.items():
    drawn = figure.draw(figure, look)
    assert drawn is not None, number
    assert len(drawn.axes) >= 2
  empty = tables.Look(config, [(pnoc, config, [None])], recorded.toy, pytest.fail)
  assert all(figure.draw(figure, empty) is None for figure in figures.FIGURES.values())
  (path,) = figures.write(figures.FIGURES[7], look, tmp_path, 'figure7')
  assert path.read_bytes().startswith(b'\x89PNG')


def _judge(directory, epochs, names=('img1', 'img4', 'img6'), side=32):
  """Leaves what a generator's training keeps of its judge; scores tell epochs and looks apart."""
  for epoch in epochs:
    rows_of = {}
    for name in names:
      squares = np.zeros((5, side, side), np.uint8)
      squares[:2, :8], squares[2:, :, :8] = 255, 255
      path = judge_history.path(directory, epoch, 'train', name)
      images.write_png(path, squares.reshape(-1, side))
      score = epoch / 100
      rows_of[name] = {'class': 'cat', 'whole': 0.9 + score, 'soft': 0.4 + score, 'hard': score}
    records.write_json(directory / 'judged' / f'{epoch:04d}' / 'train.json', rows_of)


def _figure_2(tmp_path, names):
  """Figure 2 of the runs in directories that are named after rows."""
  config = recorded.make(())
  runs = {x: command.files.read_run(tmp_path / x, toy_run.STAGES) for x in names}
  found = [(row, config, [runs[row.name]]) for row in rows.MAPS if row.name in runs]
  return figures.FIGURES[2].draw(
    figures.FIGURES[2], tables.Look(config, found, recorded.toy, pytest.fail)
  )


def _texts(drawing):
  return [x.get_text() for axes in _panels(drawing) for x in axes.texts]


def _panels(drawing):
  return [axes for part in drawing.subfigs[:-1] for axes in part.axes]


def test_figure_2_shows_erased_images_with_the_judges_map_and_score(tmp_path):
  for name in ('poc', 'pnoc'):
    toy_run.write_run(tmp_path / name)
  _judge(tmp_path / 'poc' / 'generator', range(1, 10), names=('img0', 'img1', 'img4', 'img5'))
  _judge(tmp_path / 'pnoc' / 'generator', (2, 4), names=('img1', 'img4', 'img5', 'gone'), side=16)
  drawing = _figure_2(tmp_path, ('poc', 'pnoc'))
  # The first image that both have kept, and the last whose first class is another; five epochs.
  titles = [axes.get_title() for axes in _panels(drawing)]
  assert [x for x in titles if 'img' in x] == ['img1\nclass: cat', 'img4\nclass: cat']
  epochs = [f'epoch {x}' for x in (1, 3, 5, 7, 9, 2, 4)]
  assert [x for x in titles if x.startswith('epoch')] == 2 * epochs
  whole = ['judge of P-OC,\nwhole image, epoch 9', 'judge of P-NOC,\nwhole image, epoch 4']
  assert [x for x in titles if 'whole' in x] == 2 * whole
  assert _texts(drawing) == 2 * [
    '99 %', '41 %', '1 %', '43 %', '3 %', '45 %', '5 %', '47 %', '7 %', '49 %', '9 %',
    '94 %', '42 %', '2 %', '44 %', '4 %',
  ]  # fmt: skip
  # Of img1, whose pixels are 30: what is erased has the mean colour, and the map lies over it.
  image, whole, soft = (np.asarray(axes.images[0].get_array()) for axes in _panels(drawing)[:3])
  assert np.all(image == 30)
  mean = np.round(255 * np.array(toy_run.Source.info.mean)).astype(np.uint8)
  np.testing.assert_array_equal(soft[:8, 8:], np.broadcast_to(mean, (8, 24, 3)))
  assert np.all(soft[8:, 8:] == 30) and np.all(whole[:, 8:] == 30)
  assert np.all(soft[:8, :8] != mean) and np.all(whole[:, :8] != 30)


def test_figure_2_shows_the_last_image_where_all_have_one_class(tmp_path):
  toy_run.write_run(tmp_path / 'pnoc')
  _judge(tmp_path / 'pnoc' / 'generator', (1,), names=('img1', 'img3', 'img5'))
  titles = [axes.get_title() for axes in _panels(_figure_2(tmp_path, ('pnoc',)))]
  assert [x[:4] for x in titles if 'img' in x] == ['img1', 'img5']


def test_figure_2_is_without_runs_that_kept_nothing_of_their_judge(tmp_path, capsys):
  for name in ('poc', 'pnoc'):
    toy_run.write_run(tmp_path / name)
  assert _figure_2(tmp_path, ('poc', 'pnoc')) is None
  _judge(tmp_path / 'pnoc' / 'generator', (1,), names=('img2',))
  capsys.readouterr()
  drawing = _figure_2(tmp_path, ('poc', 'pnoc'))
  assert _texts(drawing) == ['91 %', '41 %', '1 %']
  told = capsys.readouterr().out
  assert f'{tmp_path}/poc/generator/judged has nothing of train: Figure 2 is without' in told
  judge_history.path(tmp_path / 'pnoc' / 'generator', 1, 'train', 'img2').unlink()
  assert _texts(_figure_2(tmp_path, ('poc', 'pnoc'))) == []


def test_figure_2_reads_a_judge_of_another_run(tmp_path):
  """A row that reads another run's generator shows what that one's judge saw."""
  toy_run.write_run(tmp_path / 'owner')
  _judge(tmp_path / 'owner' / 'generator', (3,))
  toy_run.write_run(tmp_path / 'pnoc')
  shutil.rmtree(tmp_path / 'pnoc' / 'generator')
  of = {'inputs': {'generator': str(tmp_path / 'owner' / 'generator')}}
  given = records.read_json(tmp_path / 'pnoc' / 'config.json')
  records.write_json(tmp_path / 'pnoc' / 'config.json', given | of)
  run = command._with_log(command.files.read_run(tmp_path / 'pnoc', toy_run.STAGES), toy_run.STAGES)
  look = tables.Look(
    recorded.make(()), [(rows.MAPS[-1], recorded.make(()), [run])], recorded.toy, pytest.fail
  )
  assert '3 %' in _texts(figures.FIGURES[2].draw(figures.FIGURES[2], look))


def test_a_picture_that_is_not_there_leaves_its_place_empty(tmp_path):
  """Captions stand above the pictures of their row, whatever an image lacks."""
  toy_run.write_run(tmp_path)
  config, seen = recorded.make(()), []
  run = command.files.read_run(tmp_path, toy_run.STAGES)
  look = tables.Look(config, [(rows.MAPS[0], config, [run])], recorded.toy, pytest.fail)

  def panels(firsts, example):
    seen.append(example.id)
    picture = examples.Picture('second', '', example.image)
    yield None if len(seen) == 1 else picture._replace(caption='first')
    yield picture
    yield None

  drawing = figures.montage(look, 'title', 'train', 3, panels)
  assert len(seen) == 3 and len(drawing.axes) == 12
  titles = [axes.get_title() for axes in drawing.axes]
  assert titles == ['image', 'mask', 'first', 'second', *[''] * 8]
  assert [bool(x.images) for x in drawing.axes] == [True, True, False, *[True] * 9]
