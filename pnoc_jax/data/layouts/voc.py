"""VOC's annotations: an XML file for each image, in `Annotations/` or beside the image."""

from xml.etree import ElementTree

from pnoc_jax.data.layouts import found
from pnoc_jax.data.readers import voc
from pnoc_jax.errors import UserError


def read(request: found.Request) -> found.Found:
  """Reads the XML files below the input, of any classes.

  Raises:
    UserError: there is no XML file, one is broken, or its image is not there.
  """
  root = request.input
  paths = sorted(x for x in root.rglob('[!.]*.xml')) if root.is_dir() else []
  if not paths:
    raise UserError(f'{root} is no directory with XML files of annotations')
  own = root / 'JPEGImages'
  images = found.Images(request.images or (own if own.is_dir() else root))
  examples, problems, empty = [], [], 0
  for path in paths:
    try:
      names, beyond = voc.read_annotation(path)
    except (ElementTree.ParseError, ValueError, LookupError, OSError) as error:
      problems.append(f'{path.relative_to(root)} cannot be read ({error}); mend this file')
      continue
    file = images.find(path.stem)
    if file is None:
      problems.append(f'{path.relative_to(root)} has no image {path.stem}.* below {images.root}')
    elif '' in names:
      problems.append(f'{path.relative_to(root)} has an object without a name')
    else:
      examples.append(found.Example(file, frozenset(names)))
      empty += beyond
  found.refuse(root, problems)
  remarks = images.unlisted(examples)
  if empty:
    remarks += (f'{found.count(empty, "object")} without area within the image left out',)
  return found.Found(examples, remarks=remarks)
