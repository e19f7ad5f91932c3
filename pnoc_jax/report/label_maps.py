"""The sections on label maps: pseudo masks, predictions, and IoU by class of all products."""

from pnoc_jax.data import info
from pnoc_jax.report import confusion, examples, files, page, pictures, sections, tables

# Products whose classes are the data set's, in order.
_BY_CLASS = ('priors', 'priors_crf', 'random_walk', 'pseudo_masks', 'predictions')
_CAPTIONS = {'pseudo_masks': 'pseudo mask', 'predictions': 'prediction'}


def by_class(run: files.RunFiles, split: str) -> str:
  """IoU of every class, one column a product: the form of Table 6."""
  results = {
    tables.title(name): run.scores[name][split]
    for name in _BY_CLASS
    if split in run.scores.get(name, {})
  }
  if len(results) < 2:
    return ''
  classes = list(next(iter(results.values()))['iou'])
  rows = [
    (name, *(tables.number(result['iou'].get(name)) for result in results.values()))
    for name in classes
  ]
  for name, key in (('mean', 'miou'), ('mean of foreground', 'miou_fg')):
    rows.append((name, *(tables.number(result.get(key)) for result in results.values())))
  caption = f'IoU in percent, {split}; maps at their best threshold.'
  return page.table(('class', *results), rows, caption=caption, means=2)


def section(
  run: files.RunFiles, stage: str, split: str, source: info.Source | None, chosen: list
) -> str:
  """The table by class, the confusion matrix, and pictures (Fig. 6, Fig. 9).

  Args:
    run: the run.
    stage: `pseudo_masks` or `predictions`.
    split: of the data set.
    source: that split, or None where it does not open.
    chosen: the images to show: (why, id, IoU).
  """
  content = ''
  result = run.scores.get(stage, {}).get(split)
  if result is not None:
    title = tables.title(stage)
    parts = [sections.class_table(result)]
    if 'confusion' in result:
      name = f'confusion-{stage}-{split}'
      svg = confusion.chart(result, name=name, what=f'{title.lower()} of {split}')
      parts.append(page.chart('What each class is taken for, % of its pixels', svg))
    content += page.beside(parts)
  if source is None or not chosen:
    return content
  stages = ('pseudo_masks', 'predictions') if stage == 'predictions' else ('pseudo_masks',)
  heading = 'Image, true mask and predictions (Fig. 6, 9)'
  content += f'<h3>{heading if stage == "predictions" else "Pseudo masks"}</h3>\n'
  return content + examples.strips(source, chosen, mask_panels(run, split, source, stages))


def mask_panels(
  run: files.RunFiles, split: str, source: info.Source, stages: tuple[str, ...]
) -> examples.Panels:
  """The label maps of some stages, the last also laid over the image."""

  def panels(image_id, index, image):
    found = None
    for stage in stages:
      found = files.read_png(run, stage, split, image_id, image.shape[:2])
      if found is not None:
        title = _CAPTIONS[stage]
        coloured = pictures.colour_mask(found, source.info.palette)
        yield examples.Picture(title, f'{title} of {image_id}', coloured)
    if found is not None:
      laid = pictures.blend(image, found, source.info.palette)
      yield examples.Picture('over the image', f'{title} over {image_id}', laid, True)

  return panels
