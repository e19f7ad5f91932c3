"""Reads and writes images and masks with Pillow; every error names the file."""

import contextlib
import io
import os
from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pnoc_jax import errors
from pnoc_jax.io import atomic, ranges

_EXIF_ORIENTATION = 0x0112
_PNG_END = b'\0\0\0\0IEND\xaeB`\x82'
_DEEP = 'IF'  # First letters of the modes of more than 8 bits: whole numbers and floats.
# Pillow refuses images of 178 megapixels; whole scans and mosaics are larger.
LARGEST = 1 << 30  # Pixels.
Image.MAX_IMAGE_PIXELS = None
# What is decoded, whatever a file is called. Pillow would hand EPS to ghostscript, another program.
FORMATS = ('JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP', 'GIF', 'PPM')
# A damaged file can claim any size. A black page takes a byte for 8,256 pixels in a PNG, and no
# photograph comes near that; up to a fair size nothing is asked.
_DENSEST = 10_000  # Pixels to a byte.
_FAIR = 1 << 25  # Pixels.
_SIDEWAYS = (5, 6, 7, 8)  # Orientations that swap height and width.
# Steps along rows and columns of the other orientations, after the swap.
_TURNS = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}


def read_image(
  file: str | os.PathLike | bytes, *, upright: bool = True, white: ranges.Range | None = None
) -> np.ndarray:
  """Decodes a whole image to RGB, upright.

  The EXIF orientation is applied, so that an image looks as viewers show it; masks are expected in
  this orientation. Grey of more than 8 bits is scaled to 8, and transparency is dropped.

  Args:
    file: a path, or the bytes of a file.
    upright: False leaves the pixels as they are stored, whatever EXIF says, because the masks of
      the public data sets belong to these. The pixels of a TIFF are always upright.
    white: the range of the data set's images of more than 8 bits; by default that of this image.

  Returns:
    u8[H, W, 3].

  Raises:
    UserError: the file is missing, no image, corrupt or truncated, or has values of no range; the
      message names it.
  """
  with _open(file, 'image') as image:
    image.load()
    return np.asarray(_rgb(_upright(image) if upright else image, _label(file), white))


def extent(file: str | os.PathLike | bytes) -> ranges.Extent | int | None:
  """The values of an image of more than 8 bits; None for one of 8 bits, or that cannot be read.

  Of 16-bit colours it is the largest value alone, within 255 of it.
  """
  with contextlib.suppress(errors.UserError), _open(file, 'image') as image:
    if image.mode[0] in _DEEP:
      return ranges.extent(np.asarray(image))
    if image.format == 'PNG' and '16' in str(getattr(image, 'tile', '')):
      colors = np.asarray(image)[..., :3]
      return int(colors.max()) << 8
  return None


def read_mask(
  file: str | os.PathLike | bytes, *, colors: Mapping[tuple[int, int, int], int] | None = None
) -> np.ndarray:
  """Decodes a mask of class numbers; the colours of a palette have no meaning.

  Args:
    file: a path to (or the bytes of) a single-channel 8-bit image, mode P, L or 1.
    colors: {(R, G, B): index}, for masks that were saved as colours; None refuses these.

  Returns:
    u8[H, W].

  Raises:
    UserError: the file is missing, corrupt, has another mode or an unknown colour; the message
      names it.
  """
  with _open(file, 'mask') as image:
    image.load()
    if colors is not None and image.mode in ('RGB', 'RGBA'):
      return _decode_colors(np.asarray(image.convert('RGB')), colors, _label(file))
    if image.mode not in ('P', 'L', '1'):
      raise errors.UserError(
        f'{_label(file)}: a mask of mode {image.mode}; save class indices as a palette (P) or '
        '8-bit grey (L) PNG.'
      )
    # Most libraries turn the indices into a palette's colours; here they stay class numbers.
    return np.array(image, dtype=np.uint8)


def _decode_colors(
  array: np.ndarray, colors: Mapping[tuple[int, int, int], int], label: str
) -> np.ndarray:
  codes = {_code(np.array(color)): index for color, index in colors.items()}
  known = np.array(sorted(codes))
  indices = np.array([codes[x] for x in known.tolist()], np.uint8)
  code = _code(array)
  at = np.searchsorted(known, code).clip(max=len(known) - 1)
  wrong = known[at] != code
  if wrong.any():
    color = tuple(int(x) for x in array[wrong][0])
    raise errors.UserError(
      f'{label}: {int(wrong.sum())} pixels of this mask have colours of no class, the first is '
      f'{color}; save class indices as a palette (P) or 8-bit grey (L) PNG.'
    )
  return indices[at]


def _code(color: np.ndarray) -> np.ndarray:
  return (color.astype(np.int64) * (1 << 16, 1 << 8, 1)).sum(-1)


def image_size(file: str | os.PathLike, *, upright: bool = True) -> tuple[int, int]:
  """(H, W) of an image as `read_image` gives it, from the header alone.

  Raises:
    UserError: the file is missing or no image.
  """
  with _open(file, 'image') as image:
    width, height = image.size
    # Pillow itself turns the pixels of a TIFF, and its size is that of the turned ones.
    stored = upright and image.format != 'TIFF'
    turned = stored and image.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS
    return (width, height) if turned else (height, width)


def turn(mask: np.ndarray, file: str | os.PathLike) -> np.ndarray:
  """A mask on the stored pixels of an image, turned as `read_image` turns the image.

  Args:
    mask: u8[H, W].
    file: of the image.

  Returns:
    u8[H, W], or [W, H] of an image that lies on its side.

  Raises:
    UserError: the file is missing or no image.
  """
  with _open(file, 'image') as image:
    turned = 1 if image.format == 'TIFF' else image.getexif().get(_EXIF_ORIENTATION, 1)
  if turned in _SIDEWAYS:
    mask = mask.T
  rows, columns = _TURNS.get(turned, (1, 1))
  return np.ascontiguousarray(mask[::rows, ::columns])


def image_mode(file: str | os.PathLike) -> str:
  """Pillow's name of an image's colours, from the header: RGB, L (grey), CMYK, ...

  Raises:
    UserError: the file is missing or no image.
  """
  with _open(file, 'image') as image:
    return image.mode


def png_header(file: str | os.PathLike) -> tuple[str, tuple[int, int]]:
  """Mode and (H, W) of a PNG that ends as a PNG does; no pixel is decoded.

  Raises:
    UserError: the file is missing, no PNG, or cut short; the message names it.
  """
  with _open(file, 'PNG') as image:
    if image.format != 'PNG':
      raise errors.UserError(f'{_label(file)}: a {image.format}, not a PNG.')
    mode, (width, height) = image.mode, image.size
  with open(file, 'rb') as stream:
    stream.seek(-len(_PNG_END), os.SEEK_END)
    if stream.read() != _PNG_END:
      raise errors.UserError(f'{_label(file)}: this PNG is cut short.')
  return mode, (height, width)


def write_png(
  path: str | os.PathLike, array: np.ndarray, *, palette: np.ndarray | None = None
) -> None:
  """Writes a PNG atomically: a reader sees the old file or the new one, never a part.

  Args:
    path: of the file; its directory is made.
    array: u8[H, W] or u8[H, W, 3].
    palette: u8[n, 3] colours, n <= 256; only with u8[H, W], whose values become its indices.
      Index 255 is given the VOC colour of void when the palette is shorter.

  Raises:
    ValueError: the array has another dtype or rank.
  """
  data = encode_png(array, palette=palette)
  atomic.write(path, lambda file: file.write(data), sync_folder=False)


def encode_png(array: np.ndarray, *, palette: np.ndarray | None = None) -> bytes:
  """The bytes of a PNG; arguments and errors as of `write_png`."""
  array = np.asarray(array)
  if array.dtype != np.uint8 or array.ndim not in (2, 3):
    raise ValueError(
      f'image is {array.dtype}{list(array.shape)}, expected uint8[H, W] or [H, W, 3]'
    )
  image = Image.fromarray(array)
  if palette is not None:
    colors = np.zeros((256, 3), np.uint8)
    colors[255] = 224, 224, 192
    colors[: len(palette)] = palette
    image = Image.frombytes('P', image.size, np.ascontiguousarray(array).tobytes())
    image.putpalette(colors.tobytes())
  data = io.BytesIO()
  image.save(data, format='PNG')
  return data.getvalue()


def resize_bicubic(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Pillow's bicubic resize (a = -0.5, antialiased when it shrinks).

  Args:
    image: u8[H, W, 3 or 4].
    size: (height, width) of the result.

  Returns:
    u8[height, width, 3 or 4].
  """
  return _resize(image, size, Image.Resampling.BICUBIC)


def resize_bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Pillow's bilinear resize (antialiased when it shrinks) of u8[H, W, 3 or 4] or u8[H, W]."""
  return _resize(image, size, Image.Resampling.BILINEAR)


def resize_nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Pillow's nearest resize (of pixel centres) of u8[H, W] to u8[height, width]."""
  return _resize(mask, size, Image.Resampling.NEAREST)


def _resize(array: np.ndarray, size: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
  if array.shape[:2] == tuple(size):
    return array
  if array.ndim == 3 and array.shape[2] == 4:
    # In CMYK, Pillow treats the fourth channel like the others; in RGBA it weights by it.
    image = Image.frombytes('CMYK', array.shape[1::-1], np.ascontiguousarray(array).tobytes())
  else:
    image = Image.fromarray(array)
  return np.asarray(image.resize((size[1], size[0]), resample))


@contextlib.contextmanager
def _open(file: str | os.PathLike | bytes, what: str) -> Iterator[Image.Image]:
  """Opens with Pillow, whose many kinds of errors become one that names the file."""
  try:
    opened = io.BytesIO(file) if isinstance(file, bytes) else atomic.require_file(file)
    with Image.open(opened, formats=FORMATS) as image:
      _check_size(image, file, what)
      yield image
  except errors.UserError:
    raise
  except FileNotFoundError as error:
    raise errors.UserError(f'{_label(file)}: no such {what}.') from error
  except UnidentifiedImageError as error:
    raise errors.UserError(
      f'{_label(file)}: this {what} cannot be read: it is of none of the formats '
      f'{", ".join(FORMATS)}, or it is damaged.'
    ) from error
  # Pillow raises OSError, SyntaxError, ValueError, struct.error and more for broken files.
  except Exception as error:
    raise errors.UserError(
      f'{_label(file)}: this {what} cannot be read ({type(error).__name__}: {error}).'
    ) from error


def _check_size(image: Image.Image, file: str | os.PathLike | bytes, what: str) -> None:
  """Refuses an image that is too large, or that claims more pixels than its file can hold."""
  pixels = image.width * image.height
  if pixels > LARGEST:
    raise errors.UserError(
      f'{_label(file)}: this {what} has {pixels / 1e6:.0f} megapixels, more than the '
      f'{LARGEST / 1e6:.0f} that are read; reduce it, or cut it into parts.'
    )
  size = len(file) if isinstance(file, bytes) else os.path.getsize(file)
  if pixels > max(_FAIR, _DENSEST * size):
    raise errors.UserError(
      f'{_label(file)}: this {what} claims {pixels / 1e6:.0f} megapixels in {size} bytes: it is '
      'damaged.'
    )


def _label(file: str | os.PathLike | bytes) -> str:
  return f'<{len(file)} bytes>' if isinstance(file, bytes) else os.fspath(file)


def _upright(image: Image.Image) -> Image.Image:
  turned = image.getexif().get(_EXIF_ORIENTATION, 1) != 1
  return ImageOps.exif_transpose(image) if turned else image


def _rgb(image: Image.Image, label: str, white: ranges.Range | None) -> Image.Image:
  if image.mode == 'RGB':
    return image
  if image.mode[0] in _DEEP:
    # Pillow would clip the values at 255.
    values = np.asarray(image)
    found = ranges.extent(values)
    if fault := found.fault():
      raise errors.UserError(f'{label}: this image has {fault}.')
    return Image.fromarray(ranges.to_bytes(values, white or ranges.choose([found]))).convert('RGB')
  if image.mode == 'P' and 'transparency' in image.info:
    image = image.convert('RGBA')
  return image.convert('RGB')
