"""COCO's instances of any categories: labels, and masks of the outlines."""

import functools

from pnoc_jax.data.layouts import found
from pnoc_jax.data.readers import coco_index
from pnoc_jax.errors import UserError


def read(request: found.Request) -> found.Found:
  """Reads `instances.json`; images lie in `request.images`, or beside the file.

  Raises:
    UserError: the file is broken, or an image that it lists is not there.
  """
  path = request.input
  if not path.is_file():
    raise UserError(f'{path} is no file; give the JSON of the annotations')
  index = coco_index.open_index(path, None)
  images = found.beside(request, path)
  labels, classes = index.labels(len(index.classes)), index.classes
  examples, problems = [], []
  for number, name in enumerate(index.names()):
    file = images.find(name)
    if file is None:
      problems.append(f'there is no image {name} below {images.root}; name its place with --images')
      continue
    mask = functools.partial(index.mask, number) if request.masks else None
    named = frozenset(x for x, y in zip(classes, labels[number], strict=True) if y)
    examples.append(found.Example(file, named, mask=mask))
  found.refuse(path, problems)
  return found.Found(examples, classes, images.unlisted(examples))
