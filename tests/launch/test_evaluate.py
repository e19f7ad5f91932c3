"""The scorer's command line on folders of other tools, right and wrong."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from launch import evaluate
from pnoc_jax.data import info
from pnoc_jax.io import images, records
from tests.data import folders

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture
def root(tmp_path):
  return folders.write(tmp_path / 'data')


@pytest.fixture
def arguments(root, tmp_path):
  """Predictions that are the masks: two as grey, two with a palette."""
  pred = tmp_path / 'pred'
  pred.mkdir()
  for i, name in enumerate('abcd'):
    mask = images.read_mask(root / 'masks' / f'{name}.png')
    palette = np.array(info.color_map(21), np.uint8) if i % 2 else None
    images.write_png(pred / f'{name}.png', mask, palette=palette)
  return [f'--pred={pred}', '--dataset=folder', f'--root={root}', '--split=train']


def test_a_folder_is_scored(arguments, root, tmp_path, capsys):
  # c is taken for cat, and half of d for no class.
  images.write_png(tmp_path / 'pred' / 'c.png', np.full((28, 30), 1, np.uint8))
  half = np.full((32, 30), 3, np.uint8)
  half[:16] = 255
  images.write_png(tmp_path / 'pred' / 'd.png', half)
  out = tmp_path / 'out'
  assert evaluate.main([*arguments, f'--output={out}']) == 0
  result = records.read_json(out / 'evaluation.json')
  assert result['iou'] == pytest.approx(
    {'background': 100, 'cat': 100 * 24 / 52, 'dog': 0, 'horse': 50}
  )
  assert result['confusion'][2] == [0, 28 * 30, 0, 0, 0]
  assert result['confusion'][3] == [0, 0, 0, 16 * 30, 16 * 30]
  assert images.read_image(out / 'confusion.png').shape[0] > 100
  assert 'horse                50.0' in capsys.readouterr().out


def test_files_at_fault_are_named_and_nothing_is_written(arguments, tmp_path, capsys):
  pred, out = tmp_path / 'pred', tmp_path / 'out'
  (pred / 'a.png').unlink()
  images.write_png(pred / 'b.png', np.zeros((5, 6), np.uint8))
  images.write_png(pred / 'c.png', np.full((28, 30), 7, np.uint8))
  images.write_png(pred / 'd.png', np.zeros((32, 30, 3), np.uint8))
  assert evaluate.main([*arguments, f'--output={out}']) == 2
  told = capsys.readouterr().err
  assert '4 of 4 files' in told and 'a.png: missing' in told
  assert 'b.png: is (5, 6), but the image is (24, 30)' in told
  assert 'c.png: holds the value 7; classes are 0..3, and 255 is void' in told
  assert 'd.png: a mask of mode RGB' in told
  assert not out.exists()


@pytest.mark.parametrize('value', [0, 1])
def test_a_class_without_a_pixel_is_named(arguments, root, tmp_path, capsys, value):
  # Masks of 0 and 255: what is void would be a foreground, and the score tells nothing of it.
  for name in 'abcd':
    mask = images.read_mask(root / 'masks' / f'{name}.png')
    mask[:] = 0
    mask[:4] = 255
    images.write_png(root / 'masks' / f'{name}.png', mask)
    mask[:4] = value
    images.write_png(tmp_path / 'pred' / f'{name}.png', mask)
  assert evaluate.main([*arguments, f'--output={tmp_path / "out"}']) == 0
  told = capsys.readouterr().out
  assert 'the masks hold no pixel of cat, dog, horse: what is not there counts 0' in told
  assert '255 is void' in told
  result = records.read_json(tmp_path / 'out' / 'evaluation.json')
  assert result['absent'] == ['cat', 'dog', 'horse'] and result['miou'] == pytest.approx(25)


def test_a_value_of_a_mask_that_is_no_class_is_an_error_with_the_file(arguments, root, capsys):
  images.write_png(root / 'masks' / 'c.png', np.full((28, 30), 9, np.uint8))
  assert evaluate.main(arguments) == 2
  told = capsys.readouterr().err
  assert f'{root / "masks" / "c.png"}: the mask has the values [9], expected 0 to 3' in told


@pytest.mark.parametrize('place', ['masks', 'images/scores', '.'])
def test_an_output_among_the_data_is_refused(arguments, root, capsys, place):
  before = sorted(root.rglob('*'))
  assert evaluate.main([*arguments, f'--output={root / place}']) == 2
  assert 'name a directory apart from the data set' in capsys.readouterr().err
  assert sorted(root.rglob('*')) == before


def test_of_many_files_the_first_ten_are_named(tmp_path, capsys):
  # The data set of a run, from its record.
  config = info.DatasetConfig()
  config.shapes.size, config.shapes.val = 16, 14
  records.write_json(tmp_path / 'config.json', {'dataset': records.plain(config)})
  (tmp_path / 'empty').mkdir()
  arguments = [f'--pred={tmp_path / "empty"}', f'--dataset={tmp_path / "config.json"}']
  assert evaluate.main(arguments) == 2
  told = capsys.readouterr().err
  assert 'val_00009.png: missing\n  and 4 more' in told and 'val_00010' not in told


@pytest.mark.parametrize(
  ('changed', 'message'),
  [
    ('--pred=nowhere', 'nowhere is no directory'),
    ('--dataset=voc', "Did you mean 'voc12'? Known: shapes, "),
    ('--root=nowhere', 'no such folder'),
  ],
)
def test_wrong_arguments_are_named(arguments, capsys, changed, message):
  assert evaluate.main([*arguments, changed]) == 2
  assert message in capsys.readouterr().err


def test_a_data_set_that_is_not_told_is_asked_for(arguments, tmp_path, capsys):
  assert evaluate.main([arguments[0], '--dataset=folder']) == 2
  assert '--root=DIR is missing' in capsys.readouterr().err
  # The record of a stage names no data set: it must not pass for the default one.
  records.write_json(tmp_path / 'config.json', {'seed': 0})
  assert evaluate.main([arguments[0], f'--dataset={tmp_path / "config.json"}']) == 2
  assert "is no run's config.json" in capsys.readouterr().err


def test_without_masks_there_is_nothing_to_score(tmp_path, capsys):
  root = folders.write(tmp_path / 'data', masks=False)
  arguments = [f'--pred={tmp_path}', '--dataset=folder', f'--root={root}', '--split=train']
  assert evaluate.main(arguments) == 2
  assert 'has no masks to score against' in capsys.readouterr().err


def test_the_command_runs(arguments):
  command = [sys.executable, 'launch/evaluate.py', *arguments]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-2].split() == ['mean', '100.0']
