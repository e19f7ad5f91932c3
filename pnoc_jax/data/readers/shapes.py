"""A synthetic data set on which erasing visibly matters: small heads tell a pair of classes apart.

An object is a *body* (a superellipse) and a *head* (a disc at one end, about 17 % of the area). The
two classes of a pair share the body's hue; only the direction of faint stripes separates their
bodies, while heads have a saturated pattern that is unique to the class. A plain classifier
therefore looks at heads, and a method that erases them must find the bodies. Images are drawn when
they are asked for; there are no files.
"""

import functools
import zlib

import numpy as np

from pnoc_jax import errors
from pnoc_jax.data import info

# Classes 2p and 2p+1 are a pair: their bodies have the same hue.
CLASSES = ('apex', 'arch', 'bolt', 'bulb', 'coil', 'crown')
BACKGROUND, BODY, HEAD = 0, 1, 2  # Values of the part map.
SPLITS = ('train', 'val', 'test')  # Images could be drawn of any name, also of a misspelt one.

# So many poses are tried for an object; the one that overlaps and leaves the image least is taken.
_CANDIDATES = 48
_ASPECT = (1.5, 1.9)  # Length by width of a body.
_EXPONENT = 3.0  # Of the superellipse |u/a|^n + |v/b|^n = 1, whose area is _AREA * a * b.
_AREA = 3.533


def open_source(config: info.DatasetConfig, split: str, exclude: frozenset[str]) -> info.Source:
  """Opens a split; arguments and errors are those of `ShapesSource`."""
  return ShapesSource(config.shapes, split, exclude=exclude)


class ShapesSource:
  """Random access to one split; an image is a pure function of (seed, split, index)."""

  def __init__(
    self, config: info.ShapesConfig, split: str, *, exclude: frozenset[str] = frozenset()
  ):
    """Draws the labels; UserError if `split` is none of SPLITS or a number cannot be drawn."""
    _validate(config)
    if split not in SPLITS:
      raise errors.UserError(f'shapes has no split {split!r}; its splits are {", ".join(SPLITS)}')
    n = config.train if split == 'train' else config.val
    self._config = config
    self._indices = [i for i in range(n) if _name(split, i) not in exclude]
    self._cache = {}
    self.info = info.DatasetInfo(
      name='shapes',
      classes=CLASSES,
      background='background',
      palette=info.color_map(len(CLASSES) + 1),
    )
    self.split = split
    self.ids = tuple(_name(split, i) for i in self._indices)
    self.labels = np.zeros((len(self.ids), len(CLASSES)), np.float32)
    for row, i in enumerate(self._indices):
      self.labels[row, _classes(_rng(config, split, i), config)] = 1
    self.has_masks = True

  def __len__(self) -> int:
    return len(self.ids)

  def __getstate__(self) -> dict[str, object]:
    # It is quicker for a worker to draw images than to receive them.
    return {**self.__dict__, '_cache': {}}

  def example(self, index: int) -> dict[str, np.ndarray]:
    """{'image': u8[S, S, 3], 'label': f32[6], 'index': i32[]}."""
    image, _, _ = self._draw(index)
    return info.make_example(image, self.labels, index)

  def mask(self, index: int) -> np.ndarray:
    """u8[S, S]: 0 background, k+1 class k."""
    return self._draw(index)[1]

  def part(self, index: int) -> np.ndarray:
    """u8[S, S]: 0 background, 1 body, 2 head."""
    return self._draw(index)[2]

  def size(self, index: int) -> tuple[int, int]:
    """(S, S)."""
    del index
    return self._config.size, self._config.size

  def files(self, index: int) -> tuple[()]:
    """Empty: no file is read."""
    del index
    return ()

  def _draw(self, index: int):
    if index not in self._cache:
      arrays = draw(self._config, self.split, self._indices[index])
      for x in arrays:
        x.setflags(write=False)
      self._cache[index] = arrays
    return self._cache[index]


def draw(
  config: info.ShapesConfig, split: str, index: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Draws one example.

  Args:
    config: the data set's numbers.
    split: any name; another name gives other images.
    index: of the image in the split.

  Returns:
    image u8[S, S, 3], mask u8[S, S] (0 background, k+1 class k), part u8[S, S] (0 background,
    1 body, 2 head).
  """
  rng = _rng(config, split, index)
  size = config.size
  classes = _classes(rng, config)
  image = _background(rng, config)
  mask = np.zeros((size, size), np.uint8)
  part = np.zeros((size, size), np.uint8)

  area = size * size * config.coverage * rng.uniform(0.8, 1.2)
  share = rng.uniform(0.8, 1.2, len(classes))
  areas = area * share / share.sum()
  distractor = rng.random() < config.distractor
  if distractor:
    areas = np.append(areas, areas.mean())
    classes = np.append(classes, rng.integers(len(CLASSES)))
  placed = []
  for object_area in areas:
    placed.append(_place(rng, config, object_area, placed))

  # Bodies first, then heads: an object never hides the head of another.
  for k, pose in reversed(list(zip(classes, placed, strict=True))):
    inside = _draw_body(rng, config, image, k, pose)
    real = not (distractor and pose is placed[-1])
    mask[inside] = k + 1 if real else 0
    part[inside] = BODY if real else BACKGROUND
  for k, pose in zip(classes, placed, strict=True):
    if distractor and pose is placed[-1]:
      continue
    inside = _draw_head(rng, config, image, k, pose)
    mask[inside] = k + 1
    part[inside] = HEAD

  image += config.pixel_noise * rng.standard_normal(image.shape, np.float32)
  return np.round(image.clip(0, 1) * 255).astype(np.uint8), mask, part


def _rng(config, split, index):
  return np.random.default_rng([config.seed, zlib.crc32(split.encode()), index])


def _classes(rng, config):
  p = np.asarray(config.class_probabilities)
  n = 1 + rng.choice(len(p), p=p / p.sum())
  return rng.choice(len(CLASSES), n, replace=False)


def _background(rng, config):
  """f32[S, S, 3]: a colour, two scales of smooth noise and a grating."""
  size = config.size
  color = _rgb(rng.random(), rng.uniform(0.1, config.background_saturation), rng.uniform(0.35, 0.7))
  image = np.broadcast_to(color, (size, size, 3)).astype(np.float32)
  for grid, amplitude in ((4, config.noise_coarse), (16, config.noise_fine)):
    up = _upsample(grid, size)
    noise = rng.uniform(-amplitude, amplitude, (grid, grid, 3)).astype(np.float32)
    image += np.tensordot(up, np.tensordot(up, noise, (1, 1)), (1, 1))
  y, x = _grid(size)
  angle, cycles, phase = rng.uniform(0, np.pi), rng.uniform(3, 9), rng.uniform(0, 2 * np.pi)
  wave = np.sin(2 * np.pi * cycles / size * (np.cos(angle) * x + np.sin(angle) * y) + phase)
  image += (config.grating_amplitude * wave)[..., None]
  return image


def _place(rng, config, area, placed):
  """Picks (cy, cx, angle, a, b, r): the least bad of several poses of one object, in px."""
  size = config.size
  r = np.sqrt(config.head_area * area / np.pi)
  aspect = rng.uniform(*_ASPECT)
  # About 40 % of the head lies outside of the body.
  b = np.sqrt((area - 0.4 * np.pi * r * r) / (_AREA * aspect))
  a = aspect * b
  center = rng.uniform(0.15, 0.85, (_CANDIDATES, 2)) * size
  angle = rng.uniform(0, 2 * np.pi, _CANDIDATES)
  poses = [(*c, t, a, b, r) for c, t in zip(center, angle, strict=True)]
  circles = np.stack([_circles(pose) for pose in poses])  # [candidates, 4, (y, x, radius)]
  low, high = circles[..., :2] - circles[..., 2:], circles[..., :2] + circles[..., 2:]
  outside = (np.maximum(-low, 0) + np.maximum(high - size, 0)).sum(-1)
  # An object whose head is outside of the image would have a label without evidence.
  cost = outside[:, :3].sum(1) + 4 * outside[:, 3]
  for other in placed:
    theirs = _circles(other)
    gap = np.linalg.norm(circles[:, :, None, :2] - theirs[None, None, :, :2], axis=-1)
    overlap = np.maximum(circles[:, :, None, 2] + theirs[None, None, :, 2] - gap, 0)
    cost += 2 * overlap.sum((1, 2)) + 4 * overlap[:, 3, 3]
  return poses[int(cost.argmin())]


def _circles(pose):
  """[4, (y, x, radius)]: three circles along the body, then the head."""
  cy, cx, angle, a, b, r = pose
  along = np.array([-(a - b), 0, a - b, a - 0.3 * r])
  return np.stack(
    [cy + np.sin(angle) * along, cx + np.cos(angle) * along, np.array([b, b, b, r])], -1
  )


def _draw_body(rng, config, image, k, pose):
  """Paints a body in place; bool[S, S] of its pixels."""
  cy, cx, angle, a, b, _ = pose
  y, x = _grid(config.size)
  u = np.cos(angle) * (x - cx) + np.sin(angle) * (y - cy)
  v = -np.sin(angle) * (x - cx) + np.cos(angle) * (y - cy)
  level = (np.abs(u / a) ** _EXPONENT + np.abs(v / b) ** _EXPONENT) ** (1 / _EXPONENT)
  alpha = ((1 - level) * b + 0.5).clip(0, 1)
  hue = (k // 2) / 3 + rng.uniform(-1, 1) * config.body_hue_jitter
  color = _rgb(hue, config.body_saturation, rng.uniform(0.55, 0.8))
  # The stripes run along the body in one class of a pair, and across it in the other.
  across = v if k % 2 == 0 else u
  phase = rng.uniform(0, 2 * np.pi)
  wave = np.sin(2 * np.pi / (config.stripe_period * config.size) * across + phase)
  paint = color + (config.stripe_amplitude * wave)[..., None]
  image += alpha[..., None] * (paint - image)
  return alpha > 0.5


def _draw_head(rng, config, image, k, pose):
  """Paints a head in place; bool[S, S] of its pixels."""
  y, x = _grid(config.size)
  angle = pose[2]
  cy, cx, r = _circles(pose)[3]
  u = np.cos(angle) * (x - cx) + np.sin(angle) * (y - cy)
  v = -np.sin(angle) * (x - cx) + np.cos(angle) * (y - cy)
  distance = np.sqrt(u * u + v * v)
  alpha = (r - distance + 0.5).clip(0, 1)
  cell = config.head_cell * config.size
  shift = rng.random(2)
  if k % 3 == 0:  # Checker.
    odd = (np.floor(u / cell + shift[0]) + np.floor(v / cell + shift[1])) % 2
  elif k % 3 == 1:  # Stripes.
    odd = np.floor(u / cell + shift[0]) % 2
  else:  # Rings.
    odd = np.floor(distance / cell + 0.5) % 2
  first, second = _rgb(k / 6, 1.0, 1.0), _rgb(k / 6 + 1 / 3, 1.0, 0.85)
  paint = np.where(odd[..., None] > 0, second, first)
  image += alpha[..., None] * (paint - image)
  return alpha > 0.5


def _name(split, index):
  return f'{split}_{index:05d}'


@functools.lru_cache(maxsize=8)
def _grid(size):
  """y f32[S, 1], x f32[1, S]: the pixels' centres."""
  line = np.arange(size, dtype=np.float32) + 0.5
  return line[:, None], line[None, :]


@functools.lru_cache(maxsize=16)
def _upsample(grid, size):
  """f32[size, grid]: smooth (cosine) interpolation from a coarse line to a fine one."""
  at = np.linspace(0, grid - 1, size)
  low = np.minimum(at.astype(int), grid - 2)
  t = (1 - np.cos(np.pi * (at - low))) / 2
  out = np.zeros((size, grid), np.float32)
  out[np.arange(size), low] = 1 - t
  out[np.arange(size), low + 1] = t
  return out


def _rgb(h, s, v):
  """f32[3] in 0..1 of one HSV colour; the hue wraps."""
  k = (np.array([5, 3, 1]) + 6 * h) % 6
  return (v - v * s * np.minimum(k, 4 - k).clip(0, 1)).astype(np.float32)


def _validate(config):
  wrong = []
  if config.size < 16:
    wrong.append(f'size is {config.size}; use at least 16')
  if min(config.train, config.val) < 1:
    wrong.append(f'train and val are {config.train} and {config.val}; use at least 1')
  p = config.class_probabilities
  if not 1 <= len(p) <= len(CLASSES) or min(p) < 0 or sum(p) <= 0:
    wrong.append(f'class_probabilities is {p}; give 1 to {len(CLASSES)} numbers, not all 0')
  if not 0 < config.coverage <= 0.6:
    wrong.append(f'coverage is {config.coverage}; use a number in (0, 0.6]')
  if not 0 < config.head_area <= 0.5:
    wrong.append(f'head_area is {config.head_area}; use a number in (0, 0.5]')
  if wrong:
    raise errors.UserError('The shapes data set cannot be drawn:\n  ' + '\n  '.join(wrong))
