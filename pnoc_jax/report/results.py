"""Whether a file holds the result of an evaluation: somebody else may have written it."""

from collections.abc import Callable, Mapping
from typing import Any

LARGEST = 1e100
"""Of the numbers that are shown; JSON has whole numbers of any size."""
_SCORES = ('miou', 'miou_fg', 'fp', 'fn', 'undecided', 'accuracy', 'images')
PROXIES = ('shown', 'crf', 'views', 'undecided', 'whole', 'erased')
"""What is measured without masks, in percent."""
_BY_CLASS = ('iou', 'fp_class', 'fn_class')


def is_number(value: Any) -> bool:
  """Whether it is a finite number that a table or a chart can show."""
  return isinstance(value, int | float) and abs(value) < LARGEST


def fault(result: Mapping[str, Any]) -> str:
  """Which part of a result is not as an evaluation writes it, in words, or nothing."""
  count = len(result['iou']) if isinstance(result.get('iou'), dict) else 0
  if not count or 'miou' not in result:
    return 'it has no IoU'
  fits = {key: _is_score(result.get(key)) for key in _SCORES}
  fits |= {key: _of_all(result.get(key, {}), dict, _is_score) for key in _BY_CLASS}
  for key in ('maps', 'segmentation', 'priors'):
    inner = result.get(key, {'miou': 0.0})
    fits[key] = isinstance(inner, dict) and _is_score(inner.get('miou', ''))
  if fits['maps'] and 'maps' in result:
    fits['maps'] = is_number(result['maps'].get('threshold'))
  fits['threshold'] = is_number(result.get('threshold', 0.0))
  fits['classification'] = isinstance(result.get('classification', {}), dict)
  fits['absent'] = _of_all(result.get('absent', []), list, lambda x: isinstance(x, str))
  curve = [result.get(key, [0.0]) for key in ('thresholds', 'mious')]
  fits['thresholds'] = (
    all(_of_all(x, list, is_number) for x in curve) and len(curve[0]) == len(curve[1]) > 0
  )
  matrix = result.get('confusion', [[0.0] * (count + 1)] * count)
  fits['confusion'] = (
    _of_all(matrix, list, lambda row: _of_all(row, list, is_number) and len(row) == count + 1)
    and len(matrix) == count
  )
  return next((f'`{key}` is of another form' for key, right in fits.items() if not right), '')


def proxy_fault(result: Mapping[str, Any]) -> str:
  """Which part of a proxy is not as an evaluation writes it, in words, or nothing."""
  fits = {key: is_number(result.get(key)) for key in ('images', 'threshold', 'scales')}
  fits |= {key: _is_score(result.get(key)) for key in PROXIES}
  fits['by_image'] = _of_all(result.get('by_image'), dict, is_number)
  fits['by_class'] = _of_all(result.get('by_class'), dict, lambda x: _of_all(x, dict, _is_score))
  return next((f'`{key}` is of another form' for key, right in fits.items() if not right), '')


def _is_score(value: Any) -> bool:
  return value is None or is_number(value)


def _of_all(found: Any, kind: type, fits: Callable[[Any], bool]) -> bool:
  """Whether it is a list, or a dict, of values that all fit."""
  if not isinstance(found, kind):
    return False
  return all(map(fits, found.values() if isinstance(found, dict) else found))
