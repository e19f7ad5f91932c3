"""Statistics of a split, class by class, as in the paper's Table 8.

`%S`, the size of a class: mean share of an image that it covers, over the images that show it.
`%C`, its company: share of its images with another class.
`L`, how much company: mean number of classes in its images.
"""

import dataclasses

import numpy as np

from pnoc_jax.data import info


@dataclasses.dataclass(frozen=True)
class ClassStatistics:
  """Statistics of K classes; NaN for a class without images.

  Attributes:
    images: i64[K], images with the class, by label.
    size: f64[K + 1], %S in percent, the background first; None without masks.
    company: f64[K], %C in percent.
    count: f64[K], L.
  """

  images: np.ndarray
  size: np.ndarray | None
  company: np.ndarray
  count: np.ndarray


def shares(mask: np.ndarray, num_classes: int) -> np.ndarray:
  """The share of each class in an image.

  The paper does not say how void counts. Here void belongs to the image but to no class, so the
  shares of an image with void add up to less than 1.

  Args:
    mask: u8[H, W]; values that are no class count as void.
    num_classes: K.

  Returns:
    f64[K + 1], the background first.
  """
  counts = np.bincount(mask.ravel(), minlength=256)[: num_classes + 1]
  return counts / max(mask.size, 1)


def class_statistics(labels: np.ndarray, areas: np.ndarray | None) -> ClassStatistics:
  """The columns of Table 8 for a split.

  Args:
    labels: f32[N, K] multi-hot.
    areas: f64[N, K + 1], each image's `shares`; None without masks.

  Returns:
    The statistics. The size is a mean over the images whose mask shows the class, the other columns
    are means over the images whose label has it.
  """
  has = labels > 0
  number = has.sum(1)
  images = has.sum(0)
  with np.errstate(invalid='ignore', divide='ignore'):
    company = 100 * (has * (number > 1)[:, None]).sum(0) / images
    count = (has * number[:, None]).sum(0) / images
    size = None if areas is None else 100 * areas.sum(0) / (areas > 0).sum(0)
  return ClassStatistics(images, size, company, count)


def overall(statistics: ClassStatistics) -> tuple[float | None, float, float]:
  """(%S, %C, L) of all classes; as in Table 8, the mean of %S counts the background, too."""
  size = None if statistics.size is None else _mean(statistics.size)
  return size, _mean(statistics.company), _mean(statistics.count)


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
  """100 x Pearson's correlation over the pairs in which both numbers are finite.

  Args:
    x: f[K].
    y: f[K].

  Returns:
    -100 to 100; None if fewer than two pairs are left, or if all x or all y are equal.
  """
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  known = np.isfinite(x) & np.isfinite(y)
  x, y = x[known], y[known]
  if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
    return None
  x, y = x - x.mean(), y - y.mean()
  return float(100 * (x @ y) / np.sqrt((x @ x) * (y @ y)))


def correlations(statistics: ClassStatistics, iou: np.ndarray) -> dict[str, float | None]:
  """The last rows of Table 8: how size and company of a class correlate with its IoU.

  Args:
    statistics: the statistics of the split that was scored.
    iou: f[K] of the classes without the background; NaN for a class that was not scored.

  Returns:
    {'%S', '%C', 'L': 100 x Pearson, or None}.
  """
  columns = {'%S': statistics.size, '%C': statistics.company, 'L': statistics.count}
  return {
    name: None if column is None else pearson(column[-len(iou) :], iou)
    for name, column in columns.items()
  }


def table(statistics: ClassStatistics, dataset: info.DatasetInfo, iou: np.ndarray | None) -> str:
  """The statistics as text, one line for each class.

  Args:
    statistics: the statistics of a split.
    dataset: has the names of the classes.
    iou: f[K + 1] in percent, the background first, for a column of its own; or None.
  """
  size = np.full(dataset.num_classes + 1, np.nan) if statistics.size is None else statistics.size
  nothing = np.array([np.nan])
  columns = [
    np.concatenate([nothing, statistics.images]),
    size,
    np.concatenate([nothing, statistics.company]),
    np.concatenate([nothing, statistics.count]),
  ]
  heads = ['images', '%S', '%C', 'L']
  last = [np.nan, *[np.nan if x is None else x for x in overall(statistics)]]
  if iou is not None:
    heads.append('IoU')
    columns.append(np.asarray(iou, np.float64))
    last.append(_mean(columns[-1]))
  names = [dataset.background, *dataset.classes, 'mean']
  width = max(map(len, names))
  lines = [f'{"":<{width}}' + ''.join(f'{x:>9}' for x in heads)]
  rows = np.concatenate([np.stack(columns, 1), [last]])
  lines += [f'{name:<{width}}' + _cells(row) for name, row in zip(names, rows, strict=True)]
  if iou is not None:
    found = correlations(statistics, np.asarray(iou, np.float64)[1:]).values()
    row = [np.nan, *[np.nan if x is None else x for x in found]]
    lines.append(f'{"100 r":<{width}}' + _cells(row))
  return '\n'.join(lines)


def _cells(row):
  formats = ['.0f', '.1f', '.1f', '.2f', '.1f']
  return ''.join(
    f'{"-" if np.isnan(x) else format(x, form):>9}' for x, form in zip(row, formats, strict=False)
  )


def _mean(x):
  known = x[np.isfinite(x)]
  return float(known.mean()) if len(known) else float('nan')
