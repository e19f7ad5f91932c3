"""Files of every kind that the project reads, and how a seeded generator changes them."""

import dataclasses
import functools
import io
import json
import pathlib
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import safetensors.numpy
import scipy.io
from data import folders, miniatures
from PIL import Image

from pnoc_jax import errors
from pnoc_jax.data import cache, info, sources
from pnoc_jax.data.layouts import found as layouts
from pnoc_jax.data.layouts import rows
from pnoc_jax.data.readers import tfds
from pnoc_jax.io import foreign, images, mat, products, records, weights


@dataclasses.dataclass(frozen=True)
class Kind:
  """A kind of file.

  Attributes:
    name: of the kind.
    path: of a sound file, which is changed.
    read: reads it, and what it belongs to, as a run does.
    text: whether it is text, in which words are changed, too.
    named: what an error names: the file, or the data set that it belongs to.
    inside: `json`, `zip` or `safetensors`, for changes that leave the outer form whole.
  """

  name: str
  path: pathlib.Path
  read: Callable[[], object]
  text: bool = False
  named: str = ''
  inside: str = ''


def kinds(root: pathlib.Path) -> list[Kind]:
  """Writes a sound file of each kind."""
  return [*_images(root), *_arrays(root), *_tables(root), *_packed(root), *_layouts(root)]


def _images(root: pathlib.Path) -> Iterator[Kind]:
  y, x = np.mgrid[:40, :56]
  picture = Image.fromarray(np.stack([y * 5, x * 4, x ^ y], -1).astype(np.uint8))
  options = {'jpg': {'exif': _exif()}, 'png': {'exif': _exif(), 'dpi': (72, 72)}}
  for suffix in ('jpg', 'png', 'tif', 'webp', 'gif', 'bmp', 'ppm'):
    path = root / f'picture.{suffix}'
    picture.save(path, **options.get(suffix, {}))
    yield Kind(suffix, path, lambda path=path: _decode(path))
  path = root / 'progressive.jpg'
  picture.save(path, progressive=True)
  yield Kind('progressive jpg', path, lambda path=path: _decode(path))
  path = root / 'deep.png'
  Image.fromarray((y * x * 30).astype(np.uint16)).save(path)
  yield Kind('16-bit png', path, lambda path=path: _decode(path))
  path = root / 'mask.png'
  images.write_png(path, (y // 9).astype(np.uint8), palette=np.array(info.color_map(5)))
  yield Kind('mask', path, lambda path=path: (images.png_header(path), images.read_mask(path)))
  path = root / 'mask.mat'
  scipy.io.savemat(path, {'GTcls': {'Segmentation': (y // 9).astype(np.uint8)}})
  yield Kind('mat', path, lambda path=path: mat.read_segmentation(path))
  path = root / 'packed.mat'
  content = {'GTcls': {'Segmentation': (y // 9).astype(np.uint8)}}
  scipy.io.savemat(path, content, do_compression=True)
  yield Kind('packed mat', path, lambda path=path: mat.read_segmentation(path))


def _exif() -> Image.Exif:
  exif = Image.Exif()
  exif[0x0112], exif[0x010E] = 6, 'a description'
  return exif


def _decode(path: pathlib.Path) -> None:
  images.extent(path)
  images.image_size(path)
  images.image_mode(path)
  images.read_image(path)


def _arrays(root: pathlib.Path) -> Iterator[Kind]:
  rng = np.random.default_rng(0)
  path = root / 'prior.npz'
  high = rng.uniform(size=(2, 13, 18)).astype(np.float16)
  low = rng.uniform(size=(2, 4, 5)).astype(np.float32)
  products.write_prior(path, np.array([0, 1, 3], np.int32), low, high, np.zeros(4, np.float32))
  yield Kind('npz', path, lambda path=path: _prior(path), inside='zip')
  path = root / 'walk.npz'
  products.write_walk(path, np.array([0, 1, 3], np.int32), high, low)
  yield Kind('walk', path, lambda path=path: _walk(path), inside='zip')
  path = root / 'variables.npz'
  arrays = {f'params/{x}': rng.normal(size=(3, 5)).astype(np.float32) for x in 'ab'}
  np.savez(path, **arrays, __meta__=np.array(json.dumps({'arch': 'x'})))
  yield Kind('old weights', path, lambda path=path: foreign.read_old(path), inside='zip')
  path = root / 'kept' / 'labels.npy'
  path.parent.mkdir()
  np.save(path, rng.normal(size=(9, 4)))
  yield Kind('npy', path, lambda path=path: cache.Arrays(path.parent, {})['labels'].sum())
  variables = {'params': {x: {'kernel': rng.normal(size=(3, 5))} for x in 'ab'}}
  path = weights.save(root / 'weights.safetensors', variables, meta={'arch': 'x'})
  yield Kind('safetensors', path, lambda path=path: _ours(path), inside='safetensors')
  path = root / 'foreign.safetensors'
  path.write_bytes(safetensors.numpy.save({'conv1.weight': np.ones((2, 3, 1, 1), np.float32)}))
  yield Kind('their safetensors', path, lambda path=path: _theirs(path), inside='safetensors')


def _prior(path: pathlib.Path) -> None:
  products.exists_complete(path)
  products.read_prior(path, size=(13, 18), num_classes=4)


def _walk(path: pathlib.Path) -> None:
  products.exists_walk(path)
  products.read_walk(path, size=(13, 18))


def _ours(path: pathlib.Path) -> None:
  weights.load_meta(path)
  weights.load(path)


def _theirs(path: pathlib.Path) -> None:
  stem = {'conv1': {'kernel': np.zeros((1, 1, 3, 2), np.float32)}}
  template = {'params': {'backbone': {'stem': stem}, 'classifier': {'kernel': np.zeros(1)}}}
  weights.load_pretrained(path, template, arch='resnet18')


def _tables(root: pathlib.Path) -> Iterator[Kind]:
  folder = folders.write(root / 'folder')
  for name in ('classes.txt', 'image_labels.csv', 'splits/train.txt'):
    # A class that is renamed shows in the table of labels: the folder is named.
    yield Kind(name, folder / name, _opener('folder', folder, 'train'), True, str(folder))
  hpa = miniatures.write_hpa(root / 'hpa', 10)
  yield Kind('hpa csv', hpa / 'train.csv', _opener('hpa', hpa, 'train'), True, str(hpa))
  voc = miniatures.write_voc(root / 'voc')
  path = voc / 'VOCdevkit' / 'VOC2012' / 'Annotations' / '2007_000002.xml'
  yield Kind('xml', path, _opener('voc12', voc, 'train'), text=True)
  coco = miniatures.write_coco(root / 'coco')
  path = coco / 'annotations' / 'instances_train2014.json'
  # Most of the file is names of categories, which are the same or refused.
  content = json.loads(path.read_text())
  path.write_text(json.dumps({x: content[x] for x in ('annotations', 'images', 'categories')}))
  yield Kind('coco json', path, _opener('coco14', coco, 'train2014'), True, inside='json')
  run = root / 'run'
  records.write_done(run, {'a': [1, {'b': 'c'}]}, {'priors': 'x'}, {'seconds': 1.5})
  yield Kind('record', run / records.DONE, lambda: records.read_done(run), True, inside='json')
  path = run / 'metrics.jsonl'
  with records.JsonLines(path) as lines:
    for step in range(4):
      lines.write({'step': step, 'loss/total': 0.5 * step})
  yield Kind('log', path, lambda path=path: records.read_jsonl(path), text=True)


def _opener(name: str, root: pathlib.Path, split: str) -> Callable[[], None]:
  """Opens a split and reads all of it."""

  def read() -> None:
    source = sources.open_source(info.DatasetConfig(name=name, root=str(root)), split)
    for index in range(len(source)):
      source.example(index), source.mask(index), source.size(index)

  return read


def _packed(root: pathlib.Path) -> Iterator[Kind]:
  source = sources.open_source(info.DatasetConfig('folder', str(root / 'folder')), 'train')
  output = root / 'output'
  tfds.pack(source, 'folder', str(output))
  place = output / 'folder' / 'train' / '1.0.0'
  config = info.DatasetConfig('folder', str(output), info.Storage.TFDS)

  def read() -> None:
    packed = sources.open_source(config, 'train')
    for index in range(len(packed)):
      packed.example(index), packed.mask(index), packed.size(index)

  (path,) = place.glob('*.array_record*')
  yield Kind('array record', path, read, named=str(output))
  for name in ('metadata.json', 'features.json', 'dataset_info.json'):
    yield Kind(name, place / name, read, True, str(output), inside='json')


def _layouts(root: pathlib.Path) -> Iterator[Kind]:
  """What other tools write, of the same two images."""
  place = root / 'layouts'
  for name in 'ab':
    miniatures.picture(place / f'{name}.jpg', (12, 16))
  result = {'type': 'choices', 'value': {'choices': ['cat', 'wild boar']}}
  task = {'id': 1, 'data': {'image': '/data/upload/1/0a1b2c3d-a.jpg'}}
  export = [task | {'annotations': [{'result': [result], 'was_cancelled': False}]}]
  outline = [0.0, 0.0, 4.0, 0.0, 4.0, 3.0]
  coco = {
    'categories': [{'id': 7, 'name': 'wild boar'}, {'id': 3, 'name': 'cat'}],
    'images': [{'id': 1, 'file_name': 'a.jpg', 'height': 12, 'width': 16}],
    'annotations': [{'id': 1, 'image_id': 1, 'category_id': 7, 'segmentation': [outline]}],
  }
  written = {
    'table': ('labels.csv', 'name;tags;who\na.jpg;cat|wild boar;me\nb;;you\n', ''),
    'label_studio': ('export.json', json.dumps(export), 'json'),
    'coco': ('instances.json', json.dumps(coco), 'json'),
    'cvat': (
      'annotations.xml',
      '<annotations><meta><task><labels><label><name>cat</name></label></labels></task></meta>'
      '<image id="0" name="a.jpg"><tag label="cat"/></image><image name="b.jpg"/></annotations>',
      '',
    ),
    'yolo': ('data.yaml', 'path: .\nnames: {0: cat, 1: wild boar}\n', ''),
  }
  for name, (file, text, inside) in written.items():
    path = place / file
    path.write_text(text)
    given = place if name in ('yolo', 'cvat') else path
    request = layouts.Request(given, masks=name == 'coco')
    read = functools.partial(rows.TABLE[name].read, request)
    yield Kind(f'{name} of others', path, read, True, str(place), inside)
  path = place / 'a.txt'
  path.write_text('0 .5 .5 .1 .1\n1 0 0 1 1\n')
  read = functools.partial(rows.TABLE['yolo'].read, layouts.Request(place))
  yield Kind('yolo boxes', path, read, True, str(place))


INTERESTING = (
  0,
  1,
  0x7F,
  0x80,
  0xFF,
  0x7FFF,
  0xFFFF,
  0x7FFFFFFF,
  0xFFFFFFFF,
  1 << 40,
  (1 << 63) - 1,
)
WORDS = (
  '', '-1', '0', '1e999', 'NaN', '9' * 5000, 'null', '""', '[]', '{}', '[' * 3000, '{"a":' * 3000,
  '<a>' * 3000, '\\ud800', '\x00', '\x1b[2J', '../../x', '/etc/passwd', '\u202e', 'é' * 300,
  '"' * 7, ',' * 50, 'a' * 200_000, '&a;', '//[', '- ' * 3000, '&x [*x]',
  '<!DOCTYPE a [<!ENTITY a "' + 'b' * 500 + '">]>', '=1+1',
)  # fmt: skip


VALUES = (
  None, True, -1, 0, 1.5, 10**30, 1 << 40, '', 'x', 'x' * 300, '../x', '\x1b', '\ud800', [], {},
  [[]], [None], {'a': 1}, [1, 2, 3, 4], ['F32'], [0, 1 << 62],
)  # fmt: skip


def mutate(data: bytes, kind: Kind, rng: random.Random) -> bytes:
  """The bytes of a file with one to four changes, half of the time within its outer form."""
  if kind.inside and rng.random() < 0.5:
    return {'json': _in_json, 'zip': _in_zip, 'safetensors': _in_safetensors}[kind.inside](
      data, rng
    )
  found = bytearray(data)
  for _ in range(rng.choice((1, 1, 1, 2, 4))):
    changes = [_flip, _flip, _number, _cut, _repeat, _drop, _noise] + [_word, _swap] * 2 * kind.text
    rng.choice(changes)(found, rng)
  if found.startswith(b'\x89PNG') and rng.random() < 0.7:
    _mend_png(found)  # Else nearly all would end at a checksum.
  return bytes(found)


def _in_json(data: bytes, rng: random.Random) -> bytes:
  """Another value, or none, in the place of one."""
  content = json.loads(data)
  places = list(_places(content))
  for _ in range(rng.choice((1, 1, 2))):
    holder, key = rng.choice(places)
    if rng.random() < 0.2 and isinstance(holder, dict):
      holder.pop(key, None)
    else:
      holder[key] = rng.choice(VALUES)
  return json.dumps(content).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
  """(dict or list, key) of all that JSON holds."""
  if isinstance(value, dict | list):
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
      yield value, key
      yield from _places(inner)


def _in_zip(data: bytes, rng: random.Random) -> bytes:
  """An archive with right checksums, in which one member is changed, lost or has another name."""
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    members = {name: bytearray(archive.read(name)) for name in archive.namelist()}
  name = rng.choice(sorted(members))
  change = rng.randrange(8)
  if change == 0:
    del members[name]
  elif change == 1:
    members[rng.choice(('../x.npy', 'a', 'x.npy.npy', 'keys.npy'))] = members.pop(name)
  else:
    rng.choice([_flip, _number, _cut, _repeat, _word])(members[name], rng)
  written = io.BytesIO()
  with zipfile.ZipFile(
    written, 'w', rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
  ) as archive:
    for member, content in members.items():
      archive.writestr(member, bytes(content))
  return written.getvalue()


def _in_safetensors(data: bytes, rng: random.Random) -> bytes:
  """A header of the right length, in which values are changed."""
  size = int.from_bytes(data[:8], 'little')
  header = _in_json(data[8 : 8 + size], rng)
  return len(header).to_bytes(8, 'little') + header + data[8 + size :]


def _place(found: bytearray, rng: random.Random) -> int:
  """Somewhere; headers are hit more often."""
  return rng.randrange(min(len(found), 64) if rng.random() < 0.3 else len(found)) if found else 0


def _flip(found: bytearray, rng: random.Random) -> None:
  if found:
    found[_place(found, rng)] ^= 1 << rng.randrange(8)


def _number(found: bytearray, rng: random.Random) -> None:
  at, size = _place(found, rng), rng.choice((1, 2, 4, 8))
  value = rng.choice(INTERESTING) & ((1 << 8 * size) - 1)
  found[at : at + size] = value.to_bytes(size, rng.choice(('little', 'big')))


def _cut(found: bytearray, rng: random.Random) -> None:
  del found[_place(found, rng) :]


def _repeat(found: bytearray, rng: random.Random) -> None:
  at, size = _place(found, rng), rng.randrange(1, 200)
  found[at:at] = found[at : at + size] * rng.choice((1, 3, 50))


def _drop(found: bytearray, rng: random.Random) -> None:
  at = _place(found, rng)
  del found[at : at + rng.randrange(1, 40)]


def _noise(found: bytearray, rng: random.Random) -> None:
  at = _place(found, rng)
  found[at : at + 8] = rng.randbytes(rng.randrange(1, 32))


def _word(found: bytearray, rng: random.Random) -> None:
  at = _place(found, rng)
  found[at : at + rng.choice((0, 1, 5, 20))] = rng.choice(WORDS).encode('utf-8', 'surrogatepass')


def _swap(found: bytearray, rng: random.Random) -> None:
  """A word of the file in the place of another."""
  words = bytes(found).split(b' ')
  if len(words) > 1:
    words[rng.randrange(len(words))] = rng.choice(words)
    found[:] = b' '.join(words)


def _mend_png(found: bytearray) -> None:
  """Makes the checksums of a PNG's parts right again."""
  at = 8
  while at + 12 <= len(found):
    (size,) = struct.unpack_from('>I', found, at)
    end = at + 8 + size
    if end + 4 > len(found):
      return
    struct.pack_into('>I', found, end, zlib.crc32(found[at + 4 : end]))
    at = end + 4


def is_told(error: BaseException, kind: Kind) -> bool:
  """Whether an error is one for people that names the file."""
  named = kind.named or kind.path.name
  return isinstance(error, errors.UserError) and named in str(error)
