"""Which losses of erased images help a CAM generator on photographs? Many, from one start.

    python benchmarks/screen.py plain erase --data=voc_animals \\
        --init=efficientnet_lite0.safetensors --out=screen

A plain classifier is trained for some epochs. From it every recipe trains for one epoch more, with
a fresh optimiser: the same images in the same order, the same crops and colours, and the same
class of each that is erased. So two rows differ in what their losses do, and not in their draws.
`plain` goes on as a classifier: what the other rows are compared with. What takes long with a start
of its own (benchmarks/photographs.py) takes minutes here, on a CPU, too.

Scores are those of the priors: one image in four of train, on which recipes are chosen, and with
`--val` all of val; at the best threshold of each. A part is what compiles to one program; several
are done in turn. The start is made by the first process, and others wait for it: one process a core
is what CPUs are used best with. A row is written to OUT/NAME.json when it is found, and what is
there is not done again.
"""

import argparse
import fcntl
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import photographs
from pnoc_jax import keys, states
from pnoc_jax.io import records, weights
from pnoc_jax.losses import area, forward, multilabel, puzzle
from pnoc_jax.ops import cam as cam_ops
from pnoc_jax.ops import puzzle as puzzle_ops
from pnoc_jax.ops import resize
from pnoc_jax.optim import optimizer, schedules

_BATCH = 16
_RATE, _WARMUP = 2e-4, 10
_FRAME = 7  # Cells a side of the blurred image.


class Numbers(NamedTuple):
  """What recipes of a part differ in. Nothing of it needs another program.

  Attributes:
    re: weight of the tiles' reconstruction loss.
    cse: weight of the loss of erased images.
    image: 1: the mask's maximum is each image's; 0: the batch's, as in the paper.
    sharp: the mask is sigmoid(sharp (mask - 0.3)); 0 leaves it as it is.
    blur: 1: what is erased shows a blurred image; 0: the mean colour.
    area: weight of the mask's mean; without a judge of the area of all maps, as `lambda_area`.
    keep: weight of the loss of the image without what the mask does not cover.
    clean: 1: the judge has seen erased objects as absent, and other images' masks.
    noc: rate of the noc, as a share of the generator's.
    told: what the noc is told of the erased class: 1, as in the paper: it is there; 0: it is gone.
    delta: threshold of the noc's mask.
  """

  re: float = 0.0
  cse: float = 1.0
  image: float = 1.0
  sharp: float = 0.0
  blur: float = 0.0
  area: float = 0.0
  keep: float = 0.0
  clean: float = 0.0
  noc: float = 0.0
  told: float = 1.0
  delta: float = 0.2


_SHARP = Numbers(sharp=15.0)
_CLEAN = Numbers(clean=1.0)
_NOC = Numbers(noc=0.3)
RECIPES: dict[str, dict[str, Numbers]] = {
  'plain': {
    'plain': Numbers(),
    'plain_area_weak': Numbers(area=0.15),
    'plain_area': Numbers(area=0.5),
    'plain_area_strong': Numbers(area=1.5),
  },
  'erase': {
    'batch': Numbers(image=0.0),
    'image': Numbers(),
    'clean': _CLEAN,
    'sharp': _SHARP,
    'clean_sharp': _CLEAN._replace(sharp=15.0),
    'clean_strong': _CLEAN._replace(cse=3.0),
    'clean_area': _CLEAN._replace(area=0.5),
    'area': Numbers(cse=0.0, area=0.5),
    'clean_area_strong': _CLEAN._replace(area=1.5),
    'clean_sharp_area': _CLEAN._replace(sharp=15.0, area=0.5),
    'clean_blur': _CLEAN._replace(blur=1.0),
    'blur': Numbers(blur=1.0),
    'image_weak': Numbers(cse=0.3),
    'image_strong': Numbers(cse=3.0),
    'sharp_area': _SHARP._replace(area=0.5),
  },
  'noc': {
    'noc': _NOC,
    'noc_gone': _NOC._replace(told=0.0),
    'clean_noc': _NOC._replace(clean=1.0),
    'clean_noc_area': _NOC._replace(clean=1.0, area=0.5),
    'clean_noc_wide': _NOC._replace(clean=1.0, delta=0.5),
    'clean_noc_gone': _NOC._replace(clean=1.0, told=0.0),
    'noc_fast': _NOC._replace(noc=1.0),
  },
  'contrast': {
    'contrast_alone': Numbers(noc=1.0, delta=0.1),
    'contrast_alone_area': Numbers(noc=1.0, delta=0.1, area=0.5),
    'contrast': _NOC._replace(clean=1.0, delta=0.1),
    'contrast_strong': _NOC._replace(clean=1.0, delta=0.1, cse=3.0),
    'contrast_area': _NOC._replace(clean=1.0, delta=0.1, area=0.5),
    'contrast_sharp_area': _NOC._replace(clean=1.0, delta=0.1, sharp=15.0, area=0.5),
  },
  'tiles': {
    'poc': Numbers(re=0.25, image=0.0),
    'pnoc': _NOC._replace(re=0.25, image=0.0),
    'pnoc_clean': _NOC._replace(re=0.25, clean=1.0),
    'pnoc_strong': _NOC._replace(re=1.0, image=0.0),
  },
  'contrast_tiles': {
    'contrast_tiles_area': _NOC._replace(clean=1.0, delta=0.1, area=0.5, re=0.25),
  },
  'keep': {
    'clean_keep': _CLEAN._replace(keep=1.0),
    'clean_keep_area': _CLEAN._replace(keep=1.0, area=0.5),
  },
  'puzzle': {'puzzle': Numbers(re=0.25)},
}
"""By part and name; every name is one of a kind."""


class Part(NamedTuple):
  """Which passes a program has; `contrast` trains the noc as the clean judge was trained."""

  tiles: bool = False
  judge: bool = False
  keep: bool = False
  noc: bool = False
  contrast: bool = False


PARTS = {
  'plain': Part(),
  'erase': Part(judge=True),
  'noc': Part(judge=True, noc=True),
  'contrast': Part(judge=True, noc=True, contrast=True),
  'tiles': Part(tiles=True, judge=True, noc=True),
  'contrast_tiles': Part(tiles=True, judge=True, noc=True, contrast=True),
  'keep': Part(judge=True, keep=True),
  'puzzle': Part(tiles=True),
}


def soft_mask(cam, picked, size, numbers: Numbers):
  """The mask f32[B, H, W, 1] of the picked class."""
  one = jax.nn.relu((cam * picked[:, None, None]).sum(-1, keepdims=True))
  one = resize.bilinear(one, size)
  largest = one.max((1, 2, 3), keepdims=True)
  mask = one / (jnp.where(numbers.image > 0, largest, one.max()) + 1e-5)
  return jnp.where(numbers.sharp > 0, jax.nn.sigmoid(numbers.sharp * (mask - 0.3)), mask)


def blurred(image):
  """The image without what is smaller than a seventh of it."""
  few = jax.image.resize(image, (len(image), _FRAME, _FRAME, 3), 'linear')
  return resize.bilinear(few, image.shape[1:3])


def contrasted(image, hard, label, picked):
  """Images whole, without their own masks, and without another image's; and what is in each."""
  views = jnp.concatenate([image, image * ~hard, image * ~jnp.roll(hard, 1, 0)])
  return views, jnp.concatenate([label, label - picked, label])


class Screen:
  """The photographs, the start, and what its recipes share."""

  def __init__(self, settings: argparse.Namespace):
    settings.family = 'vanilla224'
    self.settings = settings
    self.study = study = photographs.Study(settings)
    self.steps = study.steps if settings.steps is None else settings.steps
    self.start = self._made('start', self._train_start)

  @functools.cached_property
  def clean(self) -> Any:
    """The variables of the clean judge; made where a recipe has it."""
    return self._made('clean', self._train_clean)

  def _made(self, name: str, make: Callable[[], Any]) -> Any:
    """The variables in OUT/NAME.safetensors: made by the first who asks, waited for by others."""
    path = self.settings.out / f'{name}.safetensors'
    with open(path.with_suffix('.lock'), 'w', encoding='utf-8') as file:
      fcntl.flock(file, fcntl.LOCK_EX)  # Until it is closed, or the process is dead.
      if not path.exists():
        weights.save(path, jax.device_get(make()), meta={'arch': self.settings.backbone})
    return jax.device_put(weights.load(path)[0])

  def _train_start(self):
    state, _ = self.study.run(photographs.Numbers(seed=self.settings.seed))
    return state.generator.eval_variables

  def _tx(self, frozen_norm: bool):
    """AdamW, falling to 0 at the end of the epoch."""
    groups = ('backbone/(?:stem|layer1|layer2)/.*',)
    if frozen_norm:
      groups = (*groups, r'backbone/(?:.*/)?(?:bn\d*|shortcut_bn)/(?:scale|bias)')
    plain = schedules.polynomial(1.0, self.steps, power=0.9, warmup=_WARMUP)
    return optimizer.make_optimizer(
      self.study.shapes['params'],
      schedule=lambda step: _RATE * plain(step),
      groups=optimizer.classifier_groups(1e-4, bias_lr=1.0, frozen=groups),
      descent=optimizer.Descent(optimizer.Rule.ADAMW),
    )

  def _batches(self):
    """The rows of each step, and its key: the same for every recipe."""
    rng = np.random.default_rng([self.settings.seed, 2])
    order = rng.permutation(len(self.study.train.label)).astype(np.int32)
    for i in range(self.steps):
      key = keys.stream(keys.root_key(self.settings.seed + 1), 'screen', i)
      yield key, jnp.asarray(order[i * _BATCH : (i + 1) * _BATCH])

  def _view(self, key, rows, images, sizes, labels):
    """The batch and the one-hot of the class that is erased from each image."""
    batch = self.study._batch(key, rows, images, sizes, labels)
    draw = jax.random.gumbel(jax.random.fold_in(key, 1), batch['label'].shape)
    first = jnp.where(batch['label'] > 0, draw, -jnp.inf).argmax(1)
    return batch, jax.nn.one_hot(first, batch['label'].shape[1])

  def _train_clean(self):
    """The judge that has seen objects erased, and is told that they are gone.

    It sees each image whole, without its own mask, and without that of another image, so that the
    mask's outline says nothing by itself.
    """
    study, tx = self.study, self._tx(True)

    def step(state, key, rows, *arrays):
      batch, picked = self._view(key, rows, *arrays)
      image, label = batch['image'], batch['label']
      cam = forward.evaluate(study.model, self.start, image)
      hard = soft_mask(cam, picked, image.shape[1:3], Numbers()) > 0.1
      views, target = contrasted(image, hard, label, picked)

      def loss(params):
        found, stats = forward.train(study.judge, params, state.batch_stats, views)
        return multilabel.multilabel_loss(cam_ops.logits(found), target), stats

      (total, stats), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
      return states.apply_gradients(state, grads, stats, tx), total

    step, state = jax.jit(step), states.init_state(self.start, tx)
    for key, rows in self._batches():
      state, _ = step(state, key, rows, study.images, study.sizes, study.labels)
    return state.variables

  def step(self, part: Part) -> Callable[..., Any]:
    """The update: `(generator, noc, judge, numbers, key, rows, ...)` to the states and metrics."""
    study, tx, noc_tx = self.study, self._tx(False), self._tx(True)

    def judged(variables, image):
      return cam_ops.logits(forward.evaluate(study.judge, variables, image))

    def step(generator, noc, judge, numbers, key, rows, *arrays):
      batch, picked = self._view(key, rows, *arrays)
      image, label = batch['image'], batch['label']
      size = image.shape[1:3]
      variables = noc.variables if part.noc else judge

      def loss(params):
        cam, stats = forward.train(study.model, params, generator.batch_stats, image)
        seen = {'cls': multilabel.multilabel_loss(cam_ops.logits(cam), label)}
        total = seen['cls']
        if part.tiles:
          tiles, stats = forward.train(study.model, params, stats, puzzle_ops.tile(image))
          merged = puzzle_ops.merge(tiles)
          seen['cls_re'] = multilabel.multilabel_loss(cam_ops.logits(merged), label)
          seen['re'] = puzzle.reconstruction_loss(cam, merged, label)
          total = total + seen['cls_re'] + numbers.re * seen['re']
        if not part.judge:
          seen['area'] = area.area_loss(cam, label)
          total = total + numbers.area * seen['area']
        else:
          mask = soft_mask(cam, picked, size, numbers)
          ground = numbers.blur * blurred(image)
          left = judged(variables, image * (1 - mask) + ground * mask)
          seen['cse'] = multilabel.multilabel_loss(left, label - picked)
          seen['left'] = (jax.nn.sigmoid(left) * picked).sum(1).mean()
          seen['area'] = mask.mean()
          total = total + numbers.cse * seen['cse'] + numbers.area * seen['area']
          if part.keep:
            kept = judged(variables, image * mask + ground * (1 - mask))
            seen['keep'] = multilabel.multilabel_loss(kept, picked)
            total = total + numbers.keep * seen['keep']
        return total, (stats, seen, cam)

      (_, (stats, seen, cam)), grads = jax.value_and_grad(loss, has_aux=True)(generator.params)
      generator = states.apply_gradients(generator, grads, stats, tx)
      if part.noc:
        plain = Numbers()
        hard = soft_mask(jax.lax.stop_gradient(cam), picked, size, plain) > numbers.delta
        views, target = image * ~hard, label - (1 - numbers.told) * picked
        if part.contrast:
          views, target = contrasted(image, hard, label, picked)

        def noc_loss(params):
          found, stats = forward.train(study.judge, params, noc.batch_stats, views)
          return multilabel.multilabel_loss(cam_ops.logits(found), target), stats

        (seen['noc'], stats), grads = jax.value_and_grad(noc_loss, has_aux=True)(noc.params)
        # A factor on the loss would change nothing under Adam, so it is the rate's.
        after = states.apply_gradients(noc, grads, stats, noc_tx)
        moved = jax.tree.map(lambda a, b: a + numbers.noc * (b - a), noc.params, after.params)
        noc = after.replace(params=moved)
      return generator, noc, seen

    return jax.jit(step, donate_argnums=(0, 1))

  def run(self, step: Callable[..., Any], part: Part, numbers: Numbers) -> dict[str, Any]:
    """Trains a recipe; returns its row."""
    study, begin = self.study, time.monotonic()
    judge = self.clean if numbers.clean else self.start
    copy = jax.tree.map(jnp.copy, (self.start, judge))
    generator = states.init_state(copy[0], self._tx(False))
    noc = states.init_state(copy[1], self._tx(True)) if part.noc else None
    values, seen = jax.tree.map(jnp.float32, numbers), []
    for key, rows in self._batches():
      generator, noc, metrics = step(
        generator, noc, judge, values, key, rows, study.images, study.sizes, study.labels
      )
      seen.append(jax.device_get(metrics))
    trained = time.monotonic()
    quarter = max(len(seen) // 4, 1)
    firsts = range(0, len(seen), quarter)
    curves = {
      name: [float(np.mean([m[name] for m in seen[i : i + quarter]])) for i in firsts]
      for name in seen[0]
    }
    splits = {'choice': study.choice} | ({'val': study.val} if self.settings.val else {})
    scores = {name: study.score(generator.variables, split) for name, split in splits.items()}
    return {
      **numbers._asdict(),
      **scores,
      'curves': curves,
      'train_s': trained - begin,
      'score_s': time.monotonic() - trained,
    }


def main(argv: list[str] | None = None) -> None:
  """Reads the flags, trains, writes and prints a line a recipe."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('part', nargs='+', choices=PARTS)
  add('--data', type=Path, required=True, help='in the layout of configs/pnoc_folder.py')
  add('--init', required=True, help='weights of the backbone')
  add('--backbone', default='tf_efficientnet_lite0')
  add('--form', default='auto', help='of the depthwise convolutions')
  add('--epochs', type=int, default=2, help='of the start')
  add('--steps', type=int, help='of a recipe; an epoch without it')
  add('--seed', type=int, default=0)
  add('--val', action='store_true', help='score all of val, too')
  add('--only', nargs='*', default=(), help='recipes of the parts by name; all without it')
  add('--most', type=int, help='images of a split, for a trial')
  add('--out', type=Path, required=True)
  settings = parser.parse_args(argv)
  settings.out.mkdir(parents=True, exist_ok=True)
  ours = {k: str(v) for k, v in vars(settings).items() if k not in ('part', 'only', 'out', 'val')}
  kept = settings.out / 'settings.json'
  if kept.exists() and records.read_object(kept) != ours:
    sys.exit(f'{settings.out} has rows of other settings ({kept}); take another --out')
  records.write_json(kept, ours)
  screen = Screen(settings)
  for name in settings.part:
    recipes = {k: v for k, v in RECIPES[name].items() if not settings.only or k in settings.only}
    step = screen.step(PARTS[name])
    for recipe, numbers in recipes.items():
      path = settings.out / f'{recipe}.json'
      if path.exists():
        continue
      row = {'name': recipe, 'part': name} | screen.run(step, PARTS[name], numbers)
      records.write_json(path, row)
      told = {
        split: f'{score["miou"]:.2f} (FP {score["fp"]:.1f}, FN {score["fn"]:.1f})'
        for split in ('choice', 'val')
        if split in row
        for score in row[split].values()
      }
      print(recipe, told, {k: round(v[-1], 3) for k, v in row['curves'].items()}, flush=True)


if __name__ == '__main__':
  main()
