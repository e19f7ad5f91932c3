"""The presets have the recipes' step counts and schedules, and docs/recipes.md says so.

After a change that is meant: `python tests/test_recipes.py --write` writes the numbers of the
configs into the tables of that file, whose fields and sources stay. Read the difference.
"""

import itertools
import pathlib
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from configs import _recipes  # noqa: E402
from pnoc_jax import config as config_lib  # noqa: E402
from pnoc_jax import config_flags, trees  # noqa: E402
from pnoc_jax.data.readers import coco, voc  # noqa: E402
from pnoc_jax.data.streams import pipeline  # noqa: E402
from pnoc_jax.engine import programs, settings  # noqa: E402
from pnoc_jax.runs import graph  # noqa: E402
from pnoc_jax.updates import pnoc  # noqa: E402

PRESETS = (
  'pnoc_voc',
  'pnoc_coco',
  'poc_voc',
  'puzzle_voc',
  'occse_voc',
  'vanilla_voc',
  'supervised_voc',
  'pnoc_deepglobe',
  'pnoc_cityscapes',
  'pnoc_hpa',
)
DOCUMENT = ROOT / 'docs' / 'recipes.md'
WORDS = (None, *_recipes.RECIPES)
VOC, COCO = voc.IMAGES['train_aug'], coco.IMAGES['train2014']
COCO_LABELLED = coco.IMAGES['train2014_labelled']


def load(name, words=None):
  return config_flags.load(str(ROOT / 'configs' / f'{name}.py'), words)


def horizon(training, images):
  source = types.SimpleNamespace(labels=np.ones((images, 1), np.float32))
  return programs.horizon(training, pipeline.Examples(source))


@pytest.mark.parametrize(
  ('preset', 'words', 'training', 'images', 'epoch', 'total', 'optimiser_steps'),
  [
    ('vanilla_voc', None, 'generator', VOC, 330, 4950, 4950),
    ('pnoc_voc', None, 'classifier', VOC, 330, 4950, 4950),
    ('pnoc_voc', None, 'generator', VOC, 661, 9915, 4957),
    ('pnoc_voc', 'paper', 'generator', VOC, 661, 9915, 4957),
    ('poc_voc', 'paper', 'generator', VOC, 661, 9915, 9915),
    ('puzzle_voc', 'head', 'generator', VOC, 661, 9915, 4957),
    ('pnoc_voc', None, 'c2am', VOC, 330, 3300, 3300),
    ('pnoc_voc', 'journal', 'c2am', VOC, 165, 1650, 825),
    ('pnoc_voc', 'head', 'c2am', VOC, 165, 1650, 825),
    ('pnoc_voc', None, 'affinity', VOC, 330, 990, 990),
    ('pnoc_voc', None, 'segmentation', VOC, 330, 16500, 16500),
    ('supervised_voc', 'journal', 'segmentation', VOC, 661, 33050, 16525),
    ('pnoc_voc', 'head', 'segmentation', VOC, 330, 4950, 4950),
    # As the reference counts, and without the images that have no label.
    ('pnoc_coco', None, 'classifier', COCO, 2586, 38790, 38790),
    ('pnoc_coco', None, 'generator', COCO, 5173, 77595, 38797),
    ('pnoc_coco', None, 'classifier', COCO_LABELLED, 2565, 38475, 38475),
    ('pnoc_coco', None, 'generator', COCO_LABELLED, 5130, 76950, 38475),
    # One of the 603 images of DeepGlobe is background alone.
    ('pnoc_deepglobe', None, 'classifier', 602, 18, 270, 270),
    ('pnoc_cityscapes', None, 'classifier', 2975, 92, 1380, 1380),
    ('pnoc_cityscapes', None, 'generator', 2975, 92, 1380, 1380),
  ],
)
def test_steps(preset, words, training, images, epoch, total, optimiser_steps):
  ours = getattr(load(preset, words), training)
  measured = epoch * ours.eval_every
  assert horizon(ours, images) == programs.Horizon(epoch, total, measured)
  backbone = {'conv': {'kernel': jnp.zeros(1)}, 'bn': {'scale': jnp.zeros(1)}}
  params = {'backbone': backbone, 'classifier': {'kernel': jnp.zeros(1)}}
  groups = programs.field_groups(ours)
  _, rate = programs.make_optimizer(ours.optim, params, total, groups=groups)
  at = np.array([0, 0.5, 0.9, 1]) * optimiser_steps
  expected = ours.optim.lr * np.array([1, 0.5, 0.1, 0]) ** ours.optim.power
  np.testing.assert_allclose(rate(at), expected, rtol=1e-3, atol=1e-9)


def test_few_photographs_are_shown_in_more_epochs():
  ours = load('pnoc_folder').generator
  # 4 epochs, measured twice; 3 steps to an epoch; one.
  assert horizon(ours, 1137) == programs.Horizon(71, 284, 142)
  assert horizon(ours, 50) == programs.Horizon(3, 282, 3 * 2 * 23)
  assert horizon(ours, 16) == programs.Horizon(1, 280, 140)
  ours.eval_every = 0
  assert horizon(ours, 50).measured == 0


@pytest.mark.parametrize('words', [None, 'paper', 'journal', 'head'])
def test_rates_decay_as_the_recipe_says(words):
  config = load('pnoc_voc', words)
  half, late = (1 / 2, 1 / 10) if words is None else (0.5359, 0.1259)
  for training in (config.classifier, config.generator):
    assert [0.5**training.optim.power, 0.1**training.optim.power] == pytest.approx(
      [half, late], abs=1e-4
    )
  # The rates of the stages that follow decay so in the text's code, too.
  for training in (config.c2am, config.affinity, config.segmentation):
    assert training.optim.power == 0.9


def test_coefficients_of_the_losses():
  ours = load('pnoc_voc', 'paper').generator
  total = horizon(ours, VOC).total
  ramps = [x.over(total) for x in (ours.lambda_re, ours.lambda_cse, ours.lambda_noc)]
  at = np.array([0, 0.25, 0.5, 1]) * total
  expected = [[0, 2, 4, 4], [0.3, 0.475, 0.65, 1], [0, 0.25, 0.5, 1]]
  np.testing.assert_allclose([ramp(at) for ramp in ramps], expected, atol=1e-6)
  # What the noc learns at, lambda_noc times the rate: Fig. 7.
  for words, peak, where in (('paper', 0.2686, 0.526), (None, 0.25, 0.5)):
    optim = load('pnoc_voc', words).generator.optim
    t = np.linspace(0, 1, 2001)
    effective = t * (1 - t) ** optim.power
    assert effective.max() == pytest.approx(peak, abs=1e-4)
    assert t[effective.argmax()] == pytest.approx(where, abs=1e-3)


@pytest.mark.parametrize(
  ('preset', 'words', 'training', 'scratch', 'factors'),
  [
    # Two micro-batches whose gradients are summed.
    ('pnoc_voc', None, 'generator', 'classifier', (2, 4, 20, 40)),
    ('pnoc_voc', 'journal', 'classifier', 'classifier', (1, 2, 10, 20)),
    ('pnoc_voc', 'paper', 'c2am', 'head', (1, 2, 1, 2)),
    ('pnoc_voc', 'paper', 'segmentation', 'aspp', (1, 2, 10, 20)),
    # Here the two micro-batches' gradients are averaged.
    ('pnoc_voc', 'journal', 'segmentation', 'aspp', (1, 2, 10, 20)),
    # Nesterov's first step is 1.9 gradients.
    ('pnoc_voc', 'head', 'segmentation', 'aspp', (1.9, 3.8, 19, 38)),
  ],
)
def test_factors_of_the_rate(preset, words, training, scratch, factors):
  ours = getattr(load(preset, words), training)
  optim = ours.optim
  module = {'kernel': jnp.zeros(1), 'bias': jnp.zeros(1)}
  params = {'backbone': {'conv': module}, scratch: module}
  groups = programs.field_groups(ours, (scratch,))
  tx, _ = programs.make_optimizer(optim, params, 100, groups=groups)
  state, ones = tx.init(params), jax.tree.map(jnp.ones_like, params)
  for _ in range(optim.accumulate):
    updates, state = tx.update(ones, state, params)
  names = [f'{part}/{leaf}' for part in ('backbone/conv', scratch) for leaf in ('kernel', 'bias')]
  moved = trees.flatten_names(updates)
  found = [-float(moved[name][0]) for name in names]
  np.testing.assert_allclose(np.array(found) / optim.lr, factors, rtol=1e-5)


@pytest.mark.parametrize('preset', PRESETS)
def test_all_words_go_together(preset):
  for recipe, backbone, smoke in itertools.product(
    (None, *_recipes.RECIPES), (None, 'backbone=resnet38d', 'backbone=resnet50'), (None, 'smoke')
  ):
    words = ','.join(filter(None, (recipe, backbone, smoke)))
    config = load(preset, words)
    config_lib.validate(config)
    assert config.name == '_'.join([preset, *words.replace('backbone=', '').split(',')]).strip('_')


def test_gradients_leak_to_each_noc_where_the_recipe_lets_them():
  leaks = {x: load('pnoc_voc', f'paper,method={x}').generator.leak_noc_grad for x in pnoc.METHODS}
  assert leaks == {name: method.noc for name, method in pnoc.METHODS.items()}
  assert not load('pnoc_voc', 'method=noc').generator.leak_noc_grad


def test_photographs_without_a_price_on_the_area_want_the_thresholds_that_their_config_names():
  text = (ROOT / 'configs' / 'pnoc_folder.py').read_text(encoding='utf-8')
  flags = dict(re.findall(r'--config\.([a-z_.]+)=([0-9.]+)(?=[\s`])', text))
  unpriced = load('pnoc_folder', 'method=occse')
  named = 'generator.lambda_area', 'affinity_labels.foreground', 'pseudo_masks.threshold'
  assert {x: float(flags[x]) for x in named} == {x: settings.lookup(unpriced, x) for x in named}


def _tables():
  """Yields (preset, field, cells of the four recipes, source) of docs/recipes.md."""
  text = DOCUMENT.read_text(encoding='utf-8')
  for section in text.split('\n## ')[1:]:
    preset = re.match(r'`(\w+)`', section)
    for line in section.splitlines() if preset else ():
      cells = [cell.strip() for cell in line.strip('|').split('|')]
      if line.startswith('| `'):
        yield preset.group(1), cells[0].strip('`'), cells[1:5], cells[5]


def _numbers(config):
  """The fields of a config by their dotted names."""
  found, todo = {}, list(settings.as_dict(config).items())
  while todo:
    name, value = todo.pop()
    if isinstance(value, dict):
      todo += [(f'{name}.{part}', inner) for part, inner in value.items()]
    else:
      found[name] = value
  return found


def _all_numbers():
  """The numbers of each preset in each recipe; None is that without a word."""
  return {(preset, word): _numbers(load(preset, word)) for preset in PRESETS for word in WORDS}


def test_the_document_says_what_the_configs_have():
  numbers = _all_numbers()
  rows = list(_tables())
  assert {preset for preset, *_ in rows} == set(PRESETS)
  assert len({(preset, field) for preset, field, *_ in rows}) == len(rows)
  wrong = []
  for preset, field, cells, _ in rows:
    for word, cell in zip(WORDS, cells, strict=True):
      if (value := str(numbers[preset, word][field])) != cell:
        wrong.append(f'{preset}:{word} {field} is {value}, the document says {cell}')
  assert not wrong


def test_every_row_names_its_source():
  sources = {(preset, field): source for preset, field, _, source in _tables()}
  known = re.compile(r'(text|code|both|here|C2AM|of the above)\b')
  assert not [where for where, source in sources.items() if not known.match(source)]


def _listed_as(field, config):
  """The field whose row in the document stands for this one; None where no number needs one."""
  stage, _, name = field.partition('.')
  if stage in ('name', 'dataset', 'evaluation', 'report'):
    return None  # Which data, and what is shown of them.
  if name in ('splits', 'init', 'eval_size', 'optim.nesterov'):
    return None  # Follow from data set, backbone, crop and momentum.
  if name in ('model.backbone', 'eval_split'):
    return f'classifier.{name}'
  if name == 'resize_to':
    return 'priors.resize_to'
  if name in ('transform.min_size', 'transform.max_size'):
    if config[f'{stage}.transform.resize'] == 'square':
      return f'{stage}.transform.crop'
    if stage == 'c2am':
      return 'c2am.transform.min_size'
  return field


@pytest.mark.parametrize('preset', PRESETS)
def test_no_number_is_without_a_row(preset):
  """What differs from the defaults, or from pnoc_voc, or between the recipes, has a source."""
  numbers = {word: _numbers(load(preset, word)) for word in WORDS}
  rows = {field for name, field, *_ in _tables() if name == preset}
  missing = {}
  for word in WORDS:
    config = load(preset, word)
    if preset == 'pnoc_voc':
      base = _numbers(config_lib.PipelineConfig())
    else:
      later = preset in ('pnoc_deepglobe', 'pnoc_cityscapes', 'pnoc_hpa')
      base = _numbers(load('pnoc_voc', 'head' if later else word))
    for field, value in numbers[word].items():
      stage = field.partition('.')[0]
      others = [numbers[other][field] for other in WORDS] if preset == 'pnoc_voc' else ()
      changed = value != base[field] or any(value != other for other in others)
      row = _listed_as(field, numbers[word])
      if not changed or row is None or stage not in graph.needed(config):
        continue
      if not {row, row.replace('generator.', 'classifier.')} & rows:
        missing[field] = word
  assert not missing


def test_all_but_the_largest_network_of_the_text_see_whole_batches():
  """A.1.1 of the paper; the code's runners do not know other backbones."""
  for backbone, batch, accumulate in (
    ('resnest269', 16, 2),
    ('resnest101', 32, 1),
    ('resnest50', 32, 1),
  ):
    for preset in ('pnoc_voc', 'pnoc_coco', 'poc_voc', 'puzzle_voc'):
      ours = load(preset, f'backbone={backbone}').generator
      assert (ours.batch_size, ours.optim.accumulate) == (batch, accumulate)
    ours = load('pnoc_voc', f'journal,backbone={backbone}').generator
    assert (ours.batch_size, ours.optim.accumulate) == (16, 2)


def _write():
  numbers = _all_numbers()
  lines, preset = DOCUMENT.read_text(encoding='utf-8').splitlines(), ''
  for i, line in enumerate(lines):
    if line.startswith('## '):
      preset = line.removeprefix('## ').strip('`')
    if preset in PRESETS and line.startswith('| `'):
      field, *_, source = [cell.strip() for cell in line.strip('|').split('|')]
      values = [str(numbers[preset, word][field.strip('`')]) for word in WORDS]
      lines[i] = f'| {" | ".join([field, *values, source])} |'
  DOCUMENT.write_text('\n'.join(lines) + '\n', encoding='utf-8')


if __name__ == '__main__':
  if sys.argv[1:] != ['--write']:
    sys.exit(__doc__)
  _write()
