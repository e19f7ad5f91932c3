"""The pages, from whole runs, from parts of runs and from damaged ones."""

import html.parser

import numpy as np
import pytest

from pnoc_jax import errors
from pnoc_jax.data import info
from pnoc_jax.io import products, records
from pnoc_jax.metrics import thresholds
from pnoc_jax.report import build, examples, files

CLASSES = ('background', 'cat', 'dog & <co>')


class _Source:
  """Eight images of 16 px with one square object each."""

  info = info.DatasetInfo('toy', CLASSES[1:], CLASSES[0], ((0, 0, 0), (200, 0, 0), (0, 200, 0)))
  split = 'train'
  ids = tuple(f'img{i}' for i in range(8))
  labels = np.eye(2, dtype=np.float32)[np.arange(8) % 2]
  has_masks = True

  def example(self, index):
    return {'image': np.full((16, 16, 3), 30 * index, np.uint8)}

  def mask(self, index):
    mask = np.zeros((16, 16), np.uint8)
    mask[4:12, 4:12] = 1 + index % 2
    return mask

  def size(self, index):
    return 16, 16


def _open_source(config, split):
  return _Source()


def _write_run(workdir, quality=1.0):
  source, generator = _Source(), np.random.default_rng(0)
  config = {
    'name': 'toy run',
    'dataset': records.plain(info.DatasetConfig()),
    'generator': {'method': 'pnoc', 'optim': {'rule': 'adam'}},
  }
  records.write_json(workdir / 'config.json', config)
  with records.JsonLines(workdir / 'generator' / 'metrics.jsonl') as file:
    for step in range(10, 60, 10):
      log = {'loss/total': 1 / step, 'schedule/lr': 0.1, 'schedule/lambda_noc': step / 60}
      file.write({'step': step, 'epoch': step / 10, 'time/step': 0.5, **log})
      file.write({'step': step, 'epoch': step / 10, 'eval/miou': 40.0 + step / 10})
  sums = thresholds.init_sums(3)
  for i, image_id in enumerate(source.ids):
    noise = generator.random((1, 16, 16)) * (1 - quality * (1 - i / 10))
    high = np.maximum((source.mask(i) > 0)[None] * 0.9, noise).astype(np.float16)
    keys = np.array([0, 1 + i % 2], np.int32)
    low, logits = high[:, ::4, ::4].astype(np.float32), np.zeros(2, np.float32)
    products.write_prior(workdir / 'priors' / 'train' / f'{image_id}.npz', keys, low, high, logits)
    sums += thresholds.sweep(keys, high, source.mask(i), num_classes=3)
  result = thresholds.best_score(sums, CLASSES) | {'classification': {'map': 91.25}}
  products.write_json(workdir / 'evaluation' / 'priors_train.json', result)
  return result


class _Checker(html.parser.HTMLParser):
  """Collects ids, alternative texts and addresses; fails on tags that do not close."""

  VOID = frozenset({'meta', 'img', 'br', 'link'})

  def __init__(self, text):
    super().__init__()
    self.ids, self.addresses, self.images, self.open = [], [], [], []
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attributes):
    found = dict(attributes)
    self.ids += [found['id']] if 'id' in found else []
    self.addresses += [found[k] for k in ('src', 'href', 'xlink:href') if k in found]
    self.images += [found.get('alt')] if tag == 'img' else []
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.handle_starttag(tag, attributes)
    if tag not in self.VOID:
      self.open.pop()

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def test_a_whole_run_gives_one_self_contained_page(tmp_path):
  result = _write_run(tmp_path)
  text = build.build(tmp_path, open_source=_open_source).read_text()
  found = _Checker(text)
  assert len(found.ids) == len(set(found.ids))
  assert all(address.startswith(('#', 'data:')) for address in found.addresses)
  # Of each of the 8 images: itself, mask, label map, one class.
  assert len(found.images) == 32 and all(found.images)
  assert f'{result["miou"]:.1f}' in text and '91.2' in text
  assert 'P-NOC' in text and 'Fig. 7a' in text and 'Fig. 7b' in text
  assert 'dog &amp; &lt;co&gt;' in text and '<co>' not in text
  assert 'class="note"' not in text
  # The same files give the same page.
  assert build.build(tmp_path, open_source=_open_source).read_text() == text


def test_missing_and_damaged_files_become_notes(tmp_path):
  text = build.build(tmp_path).read_text()
  _Checker(text)
  assert 'config.json does not exist' in text and 'not been evaluated' in text
  _write_run(tmp_path)
  (tmp_path / 'config.json').write_text('{}')
  (tmp_path / 'evaluation' / 'priors_val.json').write_text('{"miou": 3')
  (tmp_path / 'evaluation' / 'priors_test.json').write_text('{"miou": 3}')
  with (tmp_path / 'generator' / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 70, "loss/total": NaN}\n{"step": 8')
  text = build.build(tmp_path).read_text()
  _Checker(text)
  assert 'priors_val.json is not JSON' in text
  assert 'priors_test.json is not the result' in text
  assert 'the data set does not open' in text
  for path in (tmp_path / 'priors' / 'train').iterdir():
    path.write_bytes(path.read_bytes()[:100])
  text = build.build(tmp_path, open_source=_open_source).read_text()
  assert 'no prior of train is there and whole' in text
  with pytest.raises(errors.UserError, match='no such directory'):
    build.build(tmp_path / 'none')


def test_runs_are_set_side_by_side(tmp_path):
  for name, quality in (('a', 0.2), ('b', 0.9), ('c', 1.0)):
    _write_run(tmp_path / name, quality)
  runs = [('vanilla', tmp_path / 'a'), ('P-NOC', tmp_path / 'b'), ('P-NOC', tmp_path / 'c')]
  output = tmp_path / 'report' / 'index.html'
  assert build.build_comparison(runs, output, open_source=_open_source, images=6) == output
  found = _Checker(output.read_text())
  assert len(found.ids) == len(set(found.ids))
  # Of each of 6 images: itself, mask, one of each method.
  assert len(found.images) == 24


def test_the_data_set_opens_from_the_record_of_the_config():
  config = info.DatasetConfig()
  config.shapes.train = 3
  source = files.open_source({'dataset': records.plain(config)}, config.train_split)
  assert len(source) == 3
  with pytest.raises(errors.UserError, match='does not describe a data set'):
    files.open_source({}, 'train')


def test_examples_are_the_best_the_middle_and_the_worst():
  ranked = [(f'{i}', 100.0 - i) for i in range(21)]
  chosen = examples.choose(ranked, 9)
  assert [i for _, i, _ in chosen] == ['0', '1', '2', '9', '10', '11', '18', '19', '20']
  assert [why for why, _, _ in chosen] == ['best'] * 3 + ['median'] * 3 + ['worst'] * 3
  assert len(examples.choose(ranked[:2], 9)) == 2
  assert [i for _, i, _ in examples.choose([(str(i), float('nan')) for i in range(5)], 3)] == [
    '0',
    '2',
    '4',
  ]
