"""All layouts, a row each."""

from collections.abc import Callable
from typing import NamedTuple

from pnoc_jax.data.layouts import coco, directories, exports, found, table, voc, yolo


class Layout(NamedTuple):
  """A layout.

  Attributes:
    read: finds its images and labels.
    what: it looks like, for the help.
  """

  read: Callable[[found.Request], found.Found]
  what: str


TABLE = {
  'directories': Layout(directories.read, 'a directory for each class, perhaps in train/ and val/'),
  'table': Layout(table.read, 'a CSV: one column of files, and one of names or one for each class'),
  'coco': Layout(coco.read, 'an instances JSON of any categories'),
  'voc': Layout(voc.read, 'XML files of annotations, in Annotations/ or beside the images'),
  'yolo': Layout(yolo.read, 'text files of boxes, and data.yaml or classes.txt'),
  'label_studio': Layout(exports.read_label_studio, 'an export of Label Studio, JSON or JSON-MIN'),
  'cvat': Layout(exports.read_cvat, 'an export "CVAT for images 1.1", annotations.xml'),
}
