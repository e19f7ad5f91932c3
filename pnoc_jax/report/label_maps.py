"""The sections on label maps: pseudo masks, predictions, and IoU by class of all products."""

from collections.abc import Iterator

from pnoc_jax.report import confusion, examples, files, page, pictures, sections, tables


def by_class(run: files.RunFiles, split: str) -> str:
  """IoU of every class, one column a product: the form of Table 6."""
  results = {
    run.scored[name].title: found[split]
    for name, found in run.scores.items()
    if split in found and tables.is_of_all_classes(found[split])
  }
  if len(results) < 2:
    return ''
  rows = [
    (name, *(tables.number(result['iou'].get(name)) for result in results.values()))
    for name in next(iter(results.values()))['iou']
  ]
  for name, key in (('mean', 'miou'), ('mean of foreground', 'miou_fg')):
    rows.append((name, *(tables.number(result.get(key)) for result in results.values())))
  caption = f'IoU in percent, {split}; maps at their best threshold.'
  return page.table(('class', *results), rows, caption=caption, means=2)


def pseudo_masks(look: examples.Look, split: str) -> str:
  """The section on pseudo masks: the table by class, the confusion matrix, and pictures."""

  def panels(example: examples.Example) -> Iterator[examples.Picture]:
    return _panels(example, {'pseudo_masks': 'pseudo mask'})

  if not look.run.has('pseudo_masks', split):
    return ''
  gallery = examples.gallery(look, split, 'Pseudo masks', panels)
  return _scores(look.run, 'pseudo_masks', split) + gallery


def predictions(look: examples.Look, split: str) -> str:
  """The section on predictions, beside the pseudo masks that they were learnt from (Fig. 6, 9)."""

  def panels(example: examples.Example) -> Iterator[examples.Picture]:
    return _panels(example, {'pseudo_masks': 'pseudo mask', 'predictions': 'prediction'})

  if not look.run.has('predictions', split):
    return ''
  heading = 'Image, true mask and predictions (Fig. 6, 9)'
  return _scores(look.run, 'predictions', split) + examples.gallery(look, split, heading, panels)


def _scores(run: files.RunFiles, name: str, split: str) -> str:
  """The table by class and the confusion matrix."""
  result = run.score(name, split)
  if result is None:
    return ''
  parts = [sections.class_table(result)]
  if 'confusion' in result:
    what = f'{run.scored[name].title.lower()} of {split}'
    svg = confusion.chart(result, name=f'confusion-{name}-{split}', what=what)
    parts.append(page.chart('What each class is taken for, % of its pixels', svg))
  return page.beside(parts)


def _panels(example: examples.Example, stages: dict[str, str]) -> Iterator[examples.Picture]:
  """The label maps of some stages, by what a picture calls them; the last also over the image."""
  found = None
  for stage, caption in stages.items():
    found = example.png(stage)
    if found is not None:
      yield example.coloured(found, caption, f'{caption} of {example.id}')
  if found is not None:
    laid = pictures.blend(example.image, found, example.source.info.palette)
    alt = f'{list(stages.values())[-1]} over {example.id}'
    yield examples.Picture('over the image', alt, laid, True)
