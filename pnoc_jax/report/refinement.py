"""The sections on refinement: hints and saliency, affinity labels, the random walk."""

from collections.abc import Iterator

import numpy as np

from pnoc_jax import types
from pnoc_jax.io import products
from pnoc_jax.report import examples, files, page, pictures, sections, tables

FOREGROUND, BACKGROUND = (249, 115, 22), (59, 130, 246)


def hint_overlay(
  image: np.ndarray,
  largest: np.ndarray,
  *,
  foreground: float = 0.4,
  background: float = 0.1,
  strength: float = 0.55,
) -> np.ndarray:
  """Tints the pixels that priors are sure of, as Fig. 4: foreground orange, background blue.

  Args:
    image: u8[H, W, 3].
    largest: f[H, W], the maximum over the classes' priors.
    foreground: pixels from here on are surely foreground.
    background: pixels below are surely background.
    strength: opacity of the tints.

  Returns:
    u8[H, W, 3].
  """
  tinted = image.astype(np.float32)
  for where, colour in ((largest >= foreground, FOREGROUND), (largest < background, BACKGROUND)):
    tinted[where] = (1 - strength) * tinted[where] + strength * np.array(colour, np.float32)
  return np.round(tinted).astype(np.uint8)


def saliency(look: examples.Look, split: str) -> str:
  """The section on saliency: hints, C2AM's masks and the network's maps (Fig. 4, Table 3)."""
  run = look.run
  if not (run.has('saliency_priors', split) or run.has('saliency', split)):
    return ''
  masks, maps = run.score('saliency_priors', split), run.score('saliency', split)
  of_c2am = masks and masks.get('maps')
  named = {'masks of C2AM': masks, 'maps of C2AM': of_c2am, 'saliency network': maps}
  results = {name: result for name, result in named.items() if result is not None}
  content = ''
  if results:
    rows = [
      (
        name,
        *(result.get(key) for key in ('miou', 'miou_fg')),
        tables.number(result.get('threshold'), 2),
        *(result.get(key, {}).get('miou') for key in ('segmentation', 'priors')),
      )
      for name, result in results.items()
    ]
    header = ('', 'mIoU', 'IoU of salient', 'threshold', 'true classes', 'with priors')
    caption = (
      'In percent. First of the two classes; then over all classes, when what is salient takes its '
      'true class (Table 3, "GT"), and when priors compete with a background of 1 - saliency.'
    )
    chart = sections.threshold_chart('saliency', split, results)
    content = page.table(header, rows, caption=caption) + page.beside([chart])
  swatches = page.legend([('sure foreground', FOREGROUND), ('sure background', BACKGROUND)])
  stage = 'saliency' if run.has('saliency', split) else 'saliency_priors'
  heading = 'Hints, masks and maps (Fig. 4)'
  return content + examples.gallery(
    look, split, heading, _saliency_panels, top=swatches, stage=stage
  )


def _saliency_panels(example: examples.Example) -> Iterator[examples.Picture]:
  """The hints, and the maps and masks that are there."""
  prior = example.prior()
  if prior is not None:
    foreground = files.lookup(example.run.config, 'c2am.threshold', 0.4)
    laid = hint_overlay(example.image, prior.high.max(axis=0), foreground=foreground)
    yield examples.Picture('hints', f'What the priors of {example.id} are sure of', laid, True)
  for stage, folder, caption in (
    ('saliency_priors', 'maps/', 'C2AM map'),
    ('saliency_priors', '', 'C2AM mask'),
    ('saliency', '', 'saliency'),
  ):
    found = example.png(stage, folder)
    if found is not None:
      grey = np.repeat(found[..., None], 3, axis=2)
      yield examples.Picture(caption, f'{caption} of {example.id}', grey)


def saliency_mask_view(example: examples.Example) -> examples.View | None:
  """C2AM's mask of an image."""
  found = example.png('saliency_priors')
  if found is None:
    return None
  mask = (found > 127).astype(np.uint8)
  return examples.View('C2AM mask', mask, mask[None], salient=True)


def saliency_view(example: examples.Example) -> examples.View | None:
  """The saliency network's map of an image, and what the best threshold makes of it."""
  found = example.png('saliency')
  if found is None:
    return None
  grey = found.astype(np.float32) / 255
  threshold = np.float32(example.run.threshold('saliency', example.split))
  return examples.View('saliency', (grey > threshold).astype(np.uint8), grey[None], salient=True)


def affinity_labels(look: examples.Look, split: str) -> str:
  """The section on what AffinityNet learns from, before and after saliency and CRF (Fig. 5)."""
  if not look.run.has('affinity_labels', split):
    return ''
  content = ''
  if result := look.run.score('affinity_labels', split):
    row = (split, *(result.get(key) for key in ('undecided', 'accuracy', 'miou', 'miou_fg')))
    header = ('', 'undecided', 'accuracy', 'mIoU', 'mIoU of foreground')
    caption = 'In percent; accuracy and IoU are of the pixels that are decided.'
    content = page.table(header, [row], caption=caption)
  heading = 'Before and after saliency and CRF (Fig. 5)'
  return content + examples.gallery(look, split, heading, _affinity_panels, stage='affinity_labels')


def affinity_view(example: examples.Example) -> examples.View | None:
  """What AffinityNet learns from of an image."""
  found = example.png('affinity_labels')
  return None if found is None else examples.View('affinity labels', found)


def _affinity_panels(example: examples.Example) -> Iterator[examples.Picture]:
  """The priors cut at two thresholds, alone and with the saliency, and the labels."""
  config = example.run.config
  high = files.lookup(config, 'affinity_labels.foreground', 0.4)
  low = files.lookup(config, 'affinity_labels.background', 0.1)
  kind = files.lookup(config, 'affinity_labels.saliency', 'none')
  stage = {'priors': 'saliency_priors', 'network': 'saliency'}.get(kind)
  prior = example.prior()
  if prior is not None:
    alt = f'Priors of {example.id} at two thresholds'
    yield example.coloured(uncertain_labels(prior, high, low), 'priors alone', alt)
    seen = example.png(stage) if stage else None
    if seen is not None:
      labels = pictures.prior_mask(prior.keys, prior.high, high)
      salient = seen > np.float32(255 * low)
      labels = np.where(salient & (labels == 0), types.VOID, labels * salient)
      yield example.coloured(labels, 'with saliency', f'Priors of {example.id} where salient')
  found = example.png('affinity_labels')
  if found is not None:
    yield example.coloured(found, 'affinity labels', f'Affinity labels of {example.id}')


def uncertain_labels(prior: products.Prior, high: float, low: float) -> np.ndarray:
  """u8[H, W]: the class above `high`, background up to `low`, 255 between them."""
  labels = pictures.prior_mask(prior.keys, prior.high, high)
  between = (labels == 0) & (prior.high.max(axis=0) > np.float32(low))
  return np.where(between, types.VOID, labels).astype(np.uint8)


def random_walk(look: examples.Look, split: str) -> str:
  """The section on the random walk: the maps before and after it."""
  if not look.run.has('random_walk', split):
    return ''
  result = look.run.score('random_walk', split)
  content = sections.class_table(result) if result else ''
  heading = 'Before and after the walk'
  return content + examples.gallery(look, split, heading, _walk_panels, stage='random_walk')


def walk_view(example: examples.Example) -> examples.View | None:
  """The maps of an image after the walk, and what the best threshold makes of them."""
  walk = example.walk()
  if walk is None:
    return None
  threshold = example.run.threshold('random_walk', example.split)
  labels = pictures.prior_mask(walk.keys, walk.walk, threshold)
  return examples.View('random walk', labels, walk.walk)


def _walk_panels(example: examples.Example) -> Iterator[examples.Picture]:
  """The largest map and the label map at the best threshold, before and after."""
  run, split = example.run, example.split
  prior, walk = example.prior(), example.walk()
  found = []
  if prior is not None:
    found.append(('priors', prior.keys, prior.high, run.threshold('priors', split)))
  if walk is not None:
    found.append(('walk', walk.keys, walk.walk, run.threshold('random_walk', split)))
  for name, _, maps, _ in found:
    yield example.overlaid(maps, name, f'Largest map of {example.id}: {name}')
  for name, keys, maps, threshold in found:
    labels = pictures.prior_mask(keys, maps, threshold)
    alt = f'Label map of {example.id}: {name}'
    yield example.coloured(labels, f'{name} at {threshold:.2f}', alt)
