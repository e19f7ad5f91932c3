"""The table of data sets: a reader and a row make a new one; what is wrong is told before work."""

import numpy as np
import pytest

from pnoc_jax import config as config_lib
from pnoc_jax import errors
from pnoc_jax.data import info, sources
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.readers import files
from pnoc_jax.data.streams import pipeline
from pnoc_jax.io import images

CLASSES = ('dark', 'bright')


def _open_toy(config, split, exclude):
  """Grey images `<root>/<split>/<class>_<number>.png`."""
  root = files.find_root(config, (split,), ())
  paths = [x for x in sorted((root / split).iterdir()) if x.stem not in exclude]
  ids = [x.stem for x in paths]
  labels = np.array([[x.startswith(name) for name in CLASSES] for x in ids], np.float32)
  files.finish(root, split, ids, problems=[])
  dataset = info.DatasetInfo('toy', CLASSES, 'background', info.color_map(3))
  return files.FileSource(dataset, split, ids, labels, files.ImageFiles(paths))


@pytest.fixture
def toy(tmp_path, monkeypatch):
  """The config of a toy data set of four images, which has a row."""
  monkeypatch.setitem(sources.TABLE, 'toy', sources.Row('toy', _open_toy, images={'train': 4}))
  for number, value in enumerate((10, 20, 200, 240)):
    name = f'{CLASSES[value > 100]}_{number}.png'
    images.write_png(tmp_path / 'train' / name, np.full((24, 24, 3), value, np.uint8))
  return info.DatasetConfig(name='toy', root=str(tmp_path))


def test_a_reader_and_a_row_make_a_data_set(toy):
  assert sources.names()[-1] == 'toy' and not sources.faults(toy)
  source = sources.open_source(toy, 'train')
  assert len(source) == sources.row('toy').images['train']
  transform = transforms.TransformConfig(min_size=16, max_size=24, crop=16, augment=_NONE)
  stream = pipeline.train_batches(pipeline.Examples(source), transform, batch_size=4, seed=0)
  for _, batch in zip(range(2), stream, strict=False):
    assert batch['image'].shape == (4, 16, 16, 3)
    np.testing.assert_array_equal(batch['label'][:, 1], batch['image'].max((1, 2, 3)) > 100)
  rest = sources.open_source(toy, 'train', exclude=frozenset({'dark_0'}))
  assert rest.ids == source.ids[:2] + source.ids[3:]


_NONE = transforms.Augment.NONE


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'name': 'voc'}, r"There is no data set 'voc'\. Did you mean 'voc12'\? Known: shapes, folder"),
    ({'name': 'VOC12'}, r"'VOC12'\. Did you mean 'voc12'\?"),
    ({'name': 'x'}, r"'x'\. Known: shapes"),
    ({'masks': 'x'}, 'masks is given, but shapes has its own masks: leave it empty'),
    ({'name': 'folder', 'lists': 'x'}, r'lists is given, but folder has its own lists'),
    (
      {'name': 'voc12', 'labels': 'x', 'source': info.Storage.TFDS},
      'labels is given, but what is packed has its own labels',
    ),
  ],
)
def test_what_is_wrong_is_told_before_anything_is_opened(fields, message):
  dataset = info.DatasetConfig(**fields)
  with pytest.raises(errors.UserError, match=message):
    sources.open_source(dataset, 'train')
  with pytest.raises(errors.UserError, match=rf'(?s)the config cannot run:.*{message}'):
    config_lib.validate(config_lib.PipelineConfig(dataset=dataset))
