"""The puzzle of Puzzle-CAM: cuts images into tiles along the batch axis, and puts maps together."""

import math

import chex

from pnoc_jax import types


def tile(image: types.Array, *, pieces: int = 4) -> types.Array:
  """Cuts each image into a square grid of tiles.

  Differs from the reference: the tiles of an image follow each other (top left, top right, bottom
  left, bottom right); because a batch that is sharded over devices is then cut without
  communication. There all top left tiles come first.

  Args:
    image: [B, H, W, C].
    pieces: Tiles an image, a square number n * n; n divides H and W.

  Returns:
    [pieces * B, H / n, W / n, C].

  Raises:
    ValueError: If the image does not divide.
  """
  chex.assert_rank(image, 4)
  n = _side(pieces)
  b, h, w, c = image.shape
  if h % n or w % n:
    raise ValueError(f'image is {h} x {w}: it does not divide into {n} x {n} tiles')
  x = image.reshape(b, n, h // n, n, w // n, c)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(b * pieces, h // n, w // n, c)


def _side(pieces: int) -> int:
  n = math.isqrt(pieces)
  if n < 1 or n * n != pieces:
    raise ValueError(f'pieces is {pieces}, expected a square number (1, 4, 9, ...)')
  return n


def merge(x: types.Array, *, pieces: int = 4) -> types.Array:
  """Puts the maps of the tiles together: the inverse of `tile`.

  Args:
    x: [pieces * B, h, w, K], the tiles of an image following each other.
    pieces: Tiles an image, a square number n * n.

  Returns:
    [B, n * h, n * w, K].

  Raises:
    ValueError: If the batch is no multiple of `pieces`.
  """
  chex.assert_rank(x, 4)
  n = _side(pieces)
  b, h, w, k = x.shape
  if b % pieces:
    raise ValueError(f'x is a batch of {b}, expected a multiple of {pieces} tiles')
  x = x.reshape(b // pieces, n, n, h, w, k)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(b // pieces, n * h, n * w, k)
