"""Which CAM method is best on photographs? Trains many recipes on one accelerator, in minutes.

    python benchmarks/photographs.py vanilla448 pnoc448 --data=voc_animals \\
        --init=efficientnet_lite0.safetensors --out=study

A family is what compiles to one program: the method, the crop, and how the soft mask is made. Its
recipes differ in numbers that the program takes as arguments (loss weights, rates, seed), so each
costs no more than its steps. Several families share the device, each in a process of its own. Those
whose method has a judge compile, and wait for the file that the plain family of the same crop
writes.

All recipes see the same number of images and the same augmentation, which runs on the device:
long side drawn uniformly, crop, mirror, brightness, contrast, saturation, hue. Scores are those of
the priors: one image in four of train, on which recipes are chosen, and all of val, on which they
are reported, at the best threshold of each. Rows are written to OUT/FAMILY.json as they are found.
"""

import argparse
import functools
import json
import operator
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import views
from pnoc_jax import keys, states
from pnoc_jax.io import weights
from pnoc_jax.losses import pnoc as losses
from pnoc_jax.metrics import classification, segmentation, thresholds
from pnoc_jax.nn import backbones, classifier, layers
from pnoc_jax.ops import cam as cam_ops
from pnoc_jax.ops import convolution, erase, label_split, normalize
from pnoc_jax.optim import optimizer, schedules
from pnoc_jax.predict import cams
from pnoc_jax.updates import pnoc

_STRIDE = 16
_BATCH = 16
_JUDGE = 100  # Seed of the classifier that judges.
_CHOICE = 4  # One image in so many of train is for choosing.
_SIZES = 'small', 'medium', 'large'


class Numbers(NamedTuple):
  """What recipes of a family differ in; the ends of ramps, and factors."""

  seed: int = 0
  lr: float = 2e-4
  re: float = 0.0
  cse_start: float = 0.3
  cse: float = 1.0
  noc_start: float = 0.0
  noc_lr: float = 0.0


class Family(NamedTuple):
  """What compiles to one program, and the numbers of its recipes, the most wanted first."""

  method: str
  crop: int
  recipes: tuple[Numbers, ...]
  over: erase.Over = erase.Over.BATCH

  @property
  def sizes(self) -> tuple[int, int]:
    """Bounds of the long side in training, px: as 224 to 384 for crops of 224."""
    return self.crop, self.crop * 12 // 7

  @property
  def scales(self) -> tuple[float, ...]:
    """Those that the priors are made at, each by itself."""
    return (1.25,) if self.crop <= 256 else (1.25, 2.0)


def _seeds(numbers: Numbers, *seeds: int) -> tuple[Numbers, ...]:
  return tuple(numbers._replace(seed=seed) for seed in seeds)


_NOC = Numbers(noc_lr=0.3)


def _families() -> dict[str, Family]:
  found = {}
  for crop in (224, 448):
    tiles = (0.25, 1.0) if crop == 224 else (1.0, 4.0, 0.25)
    found |= {
      f'vanilla{crop}': Family('vanilla', crop, _seeds(Numbers(), 0, 1, 2)),
      f'puzzle{crop}': Family('puzzle', crop, tuple(Numbers(re=re) for re in tiles)),
      # Without a rate the noc is OC-CSE's fixed judge.
      f'noc{crop}': Family(
        'noc',
        crop,
        (
          *_seeds(_NOC, 0),
          Numbers(),
          _NOC._replace(noc_lr=1.0),
          _NOC._replace(noc_start=1.0, noc_lr=1.0),
          _NOC._replace(cse_start=0.1, cse=0.3),
          *_seeds(_NOC, 1, 2),
        ),
        erase.Over.IMAGE,
      ),
      f'pnoc{crop}': Family(
        'pnoc',
        crop,
        (
          *(_NOC._replace(re=re) for re in tiles),
          *(Numbers(re=re) for re in tiles[:1]),
          *_seeds(_NOC._replace(re=tiles[0]), 1, 2),
          _NOC._replace(re=tiles[0], noc_lr=1.0),
        ),
      ),
      f'pnocimage{crop}': Family(
        'pnoc',
        crop,
        (
          *(_NOC._replace(re=re) for re in tiles[:2]),
          _NOC._replace(re=tiles[0], noc_lr=1.0, noc_start=1.0),
          *_seeds(_NOC._replace(re=tiles[0]), 1, 2),
        ),
        erase.Over.IMAGE,
      ),
    }
  return found


FAMILIES = _families()


class Study:
  """One family on one device."""

  def __init__(self, settings: argparse.Namespace):
    self.settings, self.family = settings, FAMILIES[settings.family]
    self.method = pnoc.METHODS[self.family.method]
    self.train, self.classes = views.read(settings.data, 'train', most=settings.most)
    self.val, _ = views.read(settings.data, 'val', most=settings.most)
    self.choice = self.train.take(np.arange(0, len(self.train.label), _CHOICE))
    self.row = backbones.info(settings.backbone)
    self.model = self._network(layers.Norm.BATCH, 3)
    self.judge = self._network(layers.Norm.FROZEN, 0)
    self.images, self.sizes, self.labels = jax.device_put(self.train[:3])
    self.steps = len(self.train.label) // _BATCH
    self.total = settings.epochs * self.steps
    self.shapes = jax.eval_shape(
      lambda: states.init_variables(self.model, keys.root_key(0), (64, 64, 3))
    )
    self._step = jax.jit(self._both, donate_argnums=(0,))
    self._scale = jax.jit(self._cams, static_argnames='side')
    self._look = jax.jit(self._see)

  def _network(self, norm, frozen):
    radix = convolution.Radix(self.settings.form)
    options = backbones.Options(output_stride=_STRIDE, norm=norm, frozen_stages=frozen, radix=radix)
    return classifier.Classifier(
      backbones.make_backbone(self.settings.backbone, options), len(self.classes) - 1
    )

  def _optimizer(self, frozen: tuple[str, ...], lr, ramp=None):
    plain = schedules.polynomial(1.0, self.total, power=0.9, warmup=20)
    factor = ramp or schedules.constant(1.0)
    return optimizer.make_optimizer(
      self.shapes['params'],
      schedule=lambda step: lr * plain(step) * factor(step),
      groups=optimizer.classifier_groups(1e-4, bias_lr=1.0, frozen=frozen),
      descent=optimizer.Descent(optimizer.Rule.ADAMW),
    )

  def _generator_tx(self, lr):
    return self._optimizer(('backbone/(?:stem|layer1|layer2)/.*',), lr)

  def _noc_tx(self, numbers):
    ramp = schedules.ramp(numbers.noc_start, 1.0, self.total)
    frozen = (
      'backbone/(?:stem|layer1|layer2)/.*',
      r'backbone/(?:.*/)?(?:bn\d*|shortcut_bn)/(?:scale|bias)',
    )
    return self._optimizer(frozen, numbers.lr * numbers.noc_lr, ramp)

  def _batch(self, key, rows, images, sizes, labels):
    keys_ = keys.example_keys(key, rows)
    view = functools.partial(views.augment, crop=self.family.crop, sizes=self.family.sizes)
    image, box = jax.vmap(view)(keys_, images[rows], sizes[rows])
    image = normalize.normalize(image, box, mean=self.row.mean, std=self.row.std)
    return {'image': image, 'label': labels[rows], 'index': rows}

  def _both(self, state, numbers, key, rows, images, sizes, labels):
    """Both updates of a step."""
    step = state.generator.step
    batch = self._batch(keys.stream(key, 'augment', step), rows, images, sizes, labels)
    terms = losses.Terms(soft_mask=self.family.over)
    judge = self.judge if self.method.judge else None
    update = pnoc.make_generator_update(
      self.model,
      judge,
      self._generator_tx(numbers.lr),
      lambda_re=schedules.ramp(0.0, numbers.re, self.total, 0.5) if self.method.tiles else None,
      lambda_cse=schedules.ramp(numbers.cse_start, numbers.cse, self.total) if judge else None,
      terms=terms,
    )
    fixed, noc = state.noc.variables if judge else None, state.noc
    generator, split, erasure, metrics = update(
      state.generator, fixed, state.split, batch, keys.stream(key, 'split', step)
    )
    if self.method.noc:
      noc_update = pnoc.make_noc_update(
        self.judge, self._noc_tx(numbers), lambda_noc=schedules.constant(1.0), terms=terms
      )
      noc, more = noc_update(noc, erasure, batch)
      metrics = metrics | more
    return states.PnocState(generator, noc, split), metrics

  def start(self, numbers: Numbers, *, blind: bool = False) -> states.PnocState:
    """The state of step 0: ImageNet's weights, and the judge's, which `blind` does not read."""
    settings = self.settings
    fresh = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self.shapes)
    # Only the head is drawn; all else is in the file.
    head = fresh['params']['classifier']['kernel']
    draw = np.random.default_rng([numbers.seed, 1]).standard_normal(head.shape, np.float32)
    fresh['params']['classifier']['kernel'] = draw * np.sqrt(2 / head.shape[-2])
    variables = weights.load_pretrained(settings.init, fresh, arch=settings.backbone)
    generator = states.init_state(jax.device_put(variables), self._generator_tx(1.0))
    if not self.method.judge:
      return states.PnocState(generator)
    judge = variables if blind else weights.load(self.judge_file)[0]
    noc = states.init_state(jax.device_put(judge), self._noc_tx(Numbers()))
    return states.PnocState(generator, noc, label_split.init_label_split(len(self.classes) - 1))

  @property
  def judge_file(self) -> Path:
    """Where the plain family of the same crop leaves the judge."""
    return self.settings.out / f'judge{self.family.crop}.safetensors'

  def warm(self) -> None:
    """Compiles what training and scoring need."""
    numbers = self.family.recipes[0]
    state, few = self.start(numbers, blind=True), np.arange(1)
    state, _ = self._step(
      state,
      jax.tree.map(jnp.float32, numbers),
      keys.root_key(0),
      jnp.arange(_BATCH, dtype=jnp.int32),
      self.images,
      self.sizes,
      self.labels,
    )
    self.score(state.generator.eval_variables, self.val.take(few))
    self.judged(state)

  def run(self, numbers: Numbers) -> tuple[states.PnocState, list[dict[str, float]]]:
    """Trains a recipe; returns the end and the means of the metrics by epoch."""
    state, rng = self.start(numbers), np.random.default_rng(numbers.seed)
    key, curves = keys.root_key(numbers.seed), []
    values = jax.tree.map(jnp.float32, numbers)
    for _ in range(self.settings.epochs):
      order, seen = rng.permutation(len(self.train.label)).astype(np.int32), []
      for i in range(self.steps):
        rows = jnp.asarray(order[i * _BATCH : (i + 1) * _BATCH])
        state, metrics = self._step(state, values, key, rows, self.images, self.sizes, self.labels)
        seen.append(metrics)
      seen = jax.device_get(seen)
      curves.append({name: float(np.mean([m[name] for m in seen])) for name in seen[0]})
    return state, curves

  def _cams(self, variables, image, size, classes, *, side: int):
    """Priors u8[B, S, S, P] of one scale, and logits."""
    new = jnp.round(size * (side / size.max(1, keepdims=True))).astype(jnp.int32)

    def place(image, size, new):
      view = jax.image.scale_and_translate(
        image.astype(jnp.float32), (side, side, 3), (0, 1), new / size, jnp.zeros(2), method='cubic'
      )
      return jnp.clip(view, 0.0, 255.0)

    view = jax.vmap(place)(image, size, new)
    box = jnp.concatenate([jnp.zeros_like(new), new], 1)
    view = normalize.normalize(view, box, mean=self.row.mean, std=self.row.std)
    maps, logits = cams.scale_cams(self.model, variables, view, new, output_stride=_STRIDE)
    _, high = cams.fuse_cams(
      [maps], [new], size, classes, output_stride=_STRIDE, shape=(views.SIDE, views.SIDE)
    )
    return high.astype(jnp.float16), logits

  def score(self, variables, photographs: views.Photographs) -> dict[str, Any]:
    """Scores of the priors, by scale, each at its best threshold: of all, and of thirds by size.

    The thirds are of images, by the share of their pixels that is an object; their scores are
    those at the threshold that is best for all.
    """
    found, count = {}, len(photographs.label)
    sizes = _thirds(photographs)
    present = [np.flatnonzero(x) for x in photographs.label]
    room = photographs.label.shape[1]
    for scale in self.family.scales:
      parts, logits = [], []
      for first in range(0, count, _BATCH):
        rows = np.minimum(np.arange(first, first + _BATCH), count - 1)
        classes = np.stack([np.resize(present[i], room) for i in rows]).astype(np.int32)
        maps, out = self._scale(
          variables,
          photographs.image[rows],
          photographs.size[rows],
          classes,
          side=int(views.SIDE * scale),
        )
        parts.append((rows[: count - first], maps))
        logits.append(np.asarray(out)[: count - first])
      thirds = [thresholds.init_sums(len(self.classes)) for _ in _SIZES]
      for rows, maps in parts:
        maps = np.asarray(maps)
        for at, i in enumerate(rows):
          height, width = photographs.size[i]
          known = len(present[i])
          prior = maps[at, :height, :width, :known].transpose(2, 0, 1)
          thirds[sizes[i]] += thresholds.sweep(
            np.concatenate([[0], present[i] + 1]).astype(np.int32),
            prior,
            photographs.mask[i],
            num_classes=len(self.classes),
          )
      score = thresholds.best_score(functools.reduce(operator.add, thirds), self.classes)
      score['by_size'] = {
        name: _at(part, score['threshold'], self.classes)
        for name, part in zip(_SIZES, thirds, strict=True)
      }
      told = classification.score(
        classification.Predictions(np.concatenate(logits), photographs.label)
      )
      found[f'{scale:g}'] = score | {'map': told['map']}
    return found

  def judged(self, state: states.PnocState) -> dict[str, float]:
    """What the judge, as it is at the end, says of present classes: of images, of erased ones."""
    if not self.method.judge:
      return {}
    variables = state.generator.eval_variables, state.noc.variables
    rows = np.arange(min(128, len(self.val.label)))
    seen = self._look(variables, *(x[rows] for x in self.val[:3]))
    return {name: float(x.mean()) for name, x in seen.items()}

  def _see(self, variables, image, size, label):
    """The judge's scores of the first class of each image, of views f32[B] by name."""
    generator, judge = variables
    box = jnp.concatenate([jnp.zeros_like(size), size], 1)
    image = normalize.normalize(image, box, mean=self.row.mean, std=self.row.std)
    maps = self.model.apply(generator, image, train=False)
    picked = jax.nn.one_hot(label.argmax(1), label.shape[1])
    mask = erase.class_mask(maps, picked, size=image.shape[1:3], over=erase.Over.IMAGE)
    views = {
      'whole': image,
      'soft': erase.erase_soft(image, mask),
      'hard': erase.erase_hard(image, mask),
    }
    scores = {}
    for name, view in views.items():
      logits = cam_ops.logits(self.judge.apply(judge, view, train=False))
      scores[name] = (jax.nn.sigmoid(logits) * picked).sum(1)
    return scores

  def rows(self) -> Iterator[dict[str, Any]]:
    """A row a recipe, until the time is over."""
    begin, limit = time.monotonic(), self.settings.limit
    recipes, longest = self.family.recipes, 0.0
    if self.family.method == 'vanilla':
      recipes = (Numbers(seed=_JUDGE), *recipes)
    self.warm()
    while self.method.judge and not self.judge_file.exists():
      if time.monotonic() - begin > limit:
        return
      time.sleep(0.5)
    for numbers in recipes:
      start = time.monotonic()
      if start - begin + longest > limit:
        return
      state, curves = self.run(numbers)
      jax.block_until_ready(state)
      trained = time.monotonic()
      variables = state.generator.eval_variables
      if numbers.seed == _JUDGE:
        meta = {'arch': self.settings.backbone}
        weights.save(self.judge_file, jax.device_get(variables), meta=meta)
      row = {
        'family': self.settings.family,
        **numbers._asdict(),
        'epochs': self.settings.epochs,
        'val': self.score(variables, self.val),
        'choice': self.score(variables, self.choice),
        'judge': self.judged(state),
        'curves': curves,
        'train_s': trained - start,
        'score_s': time.monotonic() - trained,
        'at_s': time.monotonic() - begin,
        'device': jax.devices()[0].device_kind,
      }
      longest = max(longest, time.monotonic() - start)
      yield row


def _thirds(photographs: views.Photographs) -> np.ndarray:
  """The place in `_SIZES` of each image, by the share of its known pixels that is an object."""
  known = [mask[mask != 255] for mask in photographs.mask]
  order = np.argsort([(mask > 0).mean() for mask in known], kind='stable')
  found = np.empty(len(order), int)
  for place, part in enumerate(np.array_split(order, len(_SIZES))):
    found[part] = place
  return found


def _at(sums: thresholds.ScoreSums, threshold: float, classes: list[str]) -> dict[str, float]:
  """The foreground's IoU, FP and FN at one of the thresholds, in percent."""
  every, at = thresholds.counts(sums), sums.thresholds.index(threshold)
  found = segmentation.Counts(every.true[at], every.predicted[at], every.hit[at])
  score = segmentation.score(found, classes)
  return {name: score[name] for name in ('miou_fg', 'fp', 'fn')}


def main(argv: list[str] | None = None) -> None:
  """Reads the flags, trains, writes and prints a line a recipe."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--data', type=Path, required=True, help='in the layout of configs/pnoc_folder.py')
  add('--init', required=True, help='weights of the backbone')
  add('--backbone', default='tf_efficientnet_lite0')
  add('family', nargs='+', choices=FAMILIES)
  forms = [form.value for form in convolution.Radix]
  add('--form', choices=forms, default='auto', help='of the depthwise convolutions')
  add('--epochs', type=int, default=12)
  add('--limit', type=float, default=float('inf'), help='no recipe begins that would end later, s')
  add('--most', type=int, help='images of a split, for a trial')
  add('--out', type=Path, required=True)
  settings = parser.parse_args(argv)
  settings.out.mkdir(parents=True, exist_ok=True)
  if len(settings.family) > 1:
    words = [word for word in argv or sys.argv[1:] if word not in settings.family]
    started = [
      subprocess.Popen([sys.executable, __file__, *words, family]) for family in settings.family
    ]
    sys.exit(max(process.wait() for process in started))
  settings.family, found = settings.family[0], []
  for row in Study(settings).rows():
    found.append(row)
    (settings.out / f'{settings.family}.json').write_text(
      json.dumps(found) + '\n', encoding='utf-8'
    )
    scores = {
      f'{split} x{scale}': f'{score["miou"]:.1f} (at {score["threshold"]}, mAP {score["map"]:.1f})'
      for split in ('val', 'choice')
      for scale, score in row[split].items()
    }
    numbers = {name: row[name] for name in Numbers._fields}
    print(settings.family, numbers, scores, row['judge'], f'{row["train_s"]:.0f} s', flush=True)


if __name__ == '__main__':
  main()
