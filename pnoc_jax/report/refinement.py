"""The sections on refinement: hints and saliency, affinity labels, the random walk."""

import numpy as np

from pnoc_jax import types
from pnoc_jax.data import info
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
  """Tints what priors are sure of, as Fig. 4: foreground orange, background blue.

  Args:
    image: u8[H, W, 3].
    largest: f[H, W], the maximum over the classes' priors.
    foreground: it is foreground from here on.
    background: below it is background.
    strength: opacity of the tints.

  Returns:
    u8[H, W, 3].
  """
  tinted = image.astype(np.float32)
  for where, colour in ((largest >= foreground, FOREGROUND), (largest < background, BACKGROUND)):
    tinted[where] = (1 - strength) * tinted[where] + strength * np.array(colour, np.float32)
  return np.round(tinted).astype(np.uint8)


def saliency(run: files.RunFiles, split: str, source: info.Source | None, chosen: list) -> str:
  """Hints, C2AM's masks and the saliency network's maps (Fig. 4, Table 3)."""
  masks = run.scores.get('saliency_priors', {}).get(split)
  maps = run.scores.get('saliency', {}).get(split)
  rows, curves = [], {}
  for name, result in (
    ('masks of C2AM', masks),
    ('maps of C2AM', masks and masks.get('maps')),
    ('saliency network', maps),
  ):
    if result is None:
      continue
    more = (result.get(key, {}).get('miou') for key in ('segmentation', 'priors'))
    rows.append(
      (
        name,
        *(tables.number(result.get(key)) for key in ('miou', 'miou_fg')),
        tables.number(result.get('threshold'), 2),
        *map(tables.number, more),
      )
    )
    if 'mious' in result:
      curves[name] = result
  content = ''
  if rows:
    header = ('', 'mIoU', 'IoU of salient', 'threshold', 'true classes', 'with priors')
    caption = (
      'In percent. First of the two classes; then over all classes, when what is salient takes its '
      'true class (Table 3, "GT"), and when priors compete with a background of 1 - saliency.'
    )
    table = page.table(header, rows, caption=caption)
    chart = sections.threshold_chart('saliency', split, curves) if curves else ''
    content += table + (page.beside([chart]) if chart else '')
  if source is None or not chosen:
    return content
  swatches = page.legend([('sure foreground', FOREGROUND), ('sure background', BACKGROUND)])
  strips = examples.strips(source, chosen, saliency_panels(run, split, source))
  return content + '<h3>Hints, masks and maps (Fig. 4)</h3>\n' + swatches + strips


def saliency_panels(run: files.RunFiles, split: str, source: info.Source) -> examples.Panels:
  """The hints, and the maps and masks that are there."""
  foreground = files.lookup(run.config, 'c2am.threshold', 0.4)

  def panels(image_id, index, image):
    size = image.shape[:2]
    for _, _, prior in files.read_priors(run, split, source, [image_id]):
      laid = hint_overlay(image, prior.high.max(axis=0), foreground=foreground)
      yield examples.Picture('hints', f'What the priors of {image_id} are sure of', laid, True)
    for stage, inside, caption in (
      ('saliency_priors', f'maps/{split}', 'C2AM map'),
      ('saliency_priors', split, 'C2AM mask'),
      ('saliency', split, 'saliency'),
    ):
      found = files.read_png(run, stage, inside, image_id, size)
      if found is not None:
        grey = np.repeat(found[..., None], 3, axis=2)
        yield examples.Picture(caption, f'{caption} of {image_id}', grey)

  return panels


def affinity_labels(
  run: files.RunFiles, split: str, source: info.Source | None, chosen: list
) -> str:
  """What AffinityNet learns from, before and after saliency and CRF (Fig. 5)."""
  content = ''
  result = run.scores.get('affinity_labels', {}).get(split)
  if result is not None:
    row = (
      *(tables.number(result.get(key)) for key in ('undecided', 'accuracy', 'miou', 'miou_fg')),
    )
    header = ('', 'undecided', 'accuracy', 'mIoU', 'mIoU of foreground')
    caption = 'In percent; accuracy and IoU are of the pixels that are decided.'
    content += page.table(header, [(split, *row)], caption=caption)
  if source is None or not chosen:
    return content
  content += '<h3>Before and after saliency and CRF (Fig. 5)</h3>\n'
  return content + examples.strips(source, chosen, affinity_panels(run, split, source))


def affinity_panels(run: files.RunFiles, split: str, source: info.Source) -> examples.Panels:
  """The priors cut at two thresholds, the product, and the saliency that it knew."""
  high = files.lookup(run.config, 'affinity_labels.foreground', 0.4)
  low = files.lookup(run.config, 'affinity_labels.background', 0.1)
  kind = files.lookup(run.config, 'affinity_labels.saliency', 'none')
  stage = {'priors': 'saliency_priors', 'network': 'saliency'}.get(kind)
  palette = source.info.palette

  def panels(image_id, index, image):
    size = image.shape[:2]
    seen = files.read_png(run, stage, split, image_id, size) if stage else None
    for _, _, prior in files.read_priors(run, split, source, [image_id]):
      labels = uncertain_labels(prior, high, low)
      coloured = pictures.colour_mask(labels, palette)
      yield examples.Picture('priors alone', f'Priors of {image_id} at two thresholds', coloured)
      if seen is not None:
        labels = pictures.prior_mask(prior.keys, prior.high, high)
        salient = seen > np.float32(255 * low)
        labels = np.where(salient & (labels == 0), types.VOID, labels * salient)
        coloured = pictures.colour_mask(labels, palette)
        yield examples.Picture('with saliency', f'Priors of {image_id} where salient', coloured)
    found = files.read_png(run, 'affinity_labels', split, image_id, size)
    if found is not None:
      coloured = pictures.colour_mask(found, palette)
      yield examples.Picture('affinity labels', f'Affinity labels of {image_id}', coloured)

  return panels


def uncertain_labels(prior: products.Prior, high: float, low: float) -> np.ndarray:
  """u8[H, W]: the class above `high`, background up to `low`, 255 between them."""
  labels = pictures.prior_mask(prior.keys, prior.high, high)
  between = (labels == 0) & (prior.high.max(axis=0) > np.float32(low))
  return np.where(between, types.VOID, labels).astype(np.uint8)


def random_walk(run: files.RunFiles, split: str, source: info.Source | None, chosen: list) -> str:
  """The maps before and after the walk."""
  result = run.scores.get('random_walk', {}).get(split)
  before = run.evaluations.get(split)
  content = ''
  if result is not None:
    both = {'priors': before, 'random walk': result} if before else {'random walk': result}
    chart = sections.threshold_chart('random_walk', split, both)
    content += page.beside([chart, sections.class_table(result)])
  if source is None or not chosen:
    return content
  cuts = [x.get('threshold', 0.3) if x else 0.3 for x in (before, result)]
  content += '<h3>Before and after the walk</h3>\n'
  return content + examples.strips(source, chosen, walk_panels(run, split, source, *cuts))


def walk_panels(
  run: files.RunFiles, split: str, source: info.Source, before: float, after: float
) -> examples.Panels:
  """The largest map and the label map at the best threshold, before and after."""

  def panels(image_id, index, image):
    walk = files.read_walk(run, split, image_id, image.shape[:2])
    found = [
      ('priors', p.keys, p.high, before)
      for _, _, p in files.read_priors(run, split, source, [image_id])
    ]
    if walk is not None:
      found.append(('walk', walk.keys, walk.walk, after))
    for name, _, maps, _ in found:
      laid = pictures.overlay(image, maps.max(axis=0).astype(np.float32))
      yield examples.Picture(name, f'Largest map of {image_id}: {name}', laid, True)
    for name, keys, maps, threshold in found:
      coloured = pictures.colour_mask(
        pictures.prior_mask(keys, maps, threshold), source.info.palette
      )
      caption = f'{name} at {threshold:.2f}'
      yield examples.Picture(caption, f'Label map of {image_id}: {name}', coloured)

  return panels
