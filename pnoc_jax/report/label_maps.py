"""The sections on label maps: pseudo masks, predictions, and IoU by class of all products."""

import functools
from collections.abc import Iterator

from pnoc_jax.report import confusion, examples, files, page, pictures, sections, tables


def by_class(run: files.RunFiles, split: str, *, most_rows: int = 30) -> str:
  """IoU of every class, one column a product: the form of Table 6; folded if it is long."""
  results = {
    run.scored[name].title: found[split]
    for name, found in run.scores.items()
    if split in found and tables.is_of_all_classes(found[split])
  }
  if len(results) < 2:
    return ''
  rows = [
    (name, *(result['iou'].get(name) for result in results.values()))
    for name in next(iter(results.values()))['iou']
  ]
  for name, key in (('mean', 'miou'), ('mean of foreground', 'miou_fg')):
    rows.append((name, *(result.get(key) for result in results.values())))
  caption = f'IoU in percent, {split}; maps at their best threshold.'
  table = page.table(('class', *results), rows, caption=caption, means=2)
  return table if len(rows) <= most_rows else page.folded(f'{len(rows) - 2} classes', table)


def pseudo_masks(look: examples.Look, split: str) -> str:
  """The section on pseudo masks: the table by class, the confusion matrix, and pictures."""
  return _section(look, split, 'Pseudo masks', {'pseudo_masks': 'pseudo mask'})


def predictions(look: examples.Look, split: str) -> str:
  """The section on predictions, beside the pseudo masks that they were learnt from (Fig. 6, 9)."""
  shown = {'pseudo_masks': 'pseudo mask', 'predictions': 'prediction'}
  return _section(look, split, 'Image, true mask and predictions (Fig. 6, 9)', shown)


def _section(look: examples.Look, split: str, heading: str, shown: dict[str, str]) -> str:
  """On the last of the stages whose label maps are shown; `shown` is stage -> caption."""
  name = list(shown)[-1]
  if not look.run.has(name, split):
    return ''
  parts = []
  if result := look.run.score(name, split):
    parts.append(sections.class_table(result))
    if 'confusion' in result:
      what = f'{look.run.scored[name].title.lower()} of {split}'
      svg = confusion.chart(result, name=f'confusion-{name}-{split}', what=what)
      parts.append(page.chart('What each class is taken for, % of its pixels', svg))
  panels = functools.partial(_panels, shown)
  return page.beside(parts) + examples.gallery(look, split, heading, panels, stage=name)


def _panels(shown: dict[str, str], example: examples.Example) -> Iterator[examples.Picture]:
  """The label maps of some stages, the last also over the image."""
  found, caption = None, ''
  for stage, caption in shown.items():
    found = example.png(stage)
    if found is not None:
      yield example.coloured(found, caption, f'{caption} of {example.id}')
  if found is not None:
    palette = pictures.palette(example.source.info.num_classes)
    laid = pictures.blend(example.image, found, palette)
    names = example.names(found)
    yield examples.Picture('over the image', f'{caption} over {example.id}', laid, True, names)


def pseudo_mask_view(example: examples.Example) -> examples.View | None:
  """The pseudo mask of an image."""
  found = example.png('pseudo_masks')
  return None if found is None else examples.View('pseudo mask', found)


def prediction_view(example: examples.Example) -> examples.View | None:
  """What the segmentation network says of an image."""
  found = example.png('predictions')
  return None if found is None else examples.View('prediction', found)
