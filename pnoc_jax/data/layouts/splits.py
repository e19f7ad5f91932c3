"""Draws the images of a validation split, so that each class is in both."""

from collections.abc import Sequence

import numpy as np


def draw(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
  """Which images validate: about a share of each class, and of the images without a class.

  Classes are drawn for by ascending number of images; a class of two images or more is in both
  parts, and what other classes have put into a part counts (iterative stratification: Sechidis,
  Tsoumakas and Vlahavas, 2011).

  Args:
    labels: bool[N, K].
    share: of the images that validate, between 0 and 1.
    seed: of the order in which images are drawn.

  Returns:
    bool[N].
  """
  order = np.random.default_rng(seed).permutation(len(labels))
  # Images without a class are a class of their own.
  groups = np.concatenate([labels, ~labels.any(axis=1, keepdims=True)], axis=1)[order]
  totals = groups.sum(axis=0)
  wanted = np.minimum(np.maximum(np.rint(totals * share), totals > 1), np.maximum(totals - 1, 0))
  chosen, open_ = np.zeros(len(order), bool), np.ones(len(order), bool)
  for group in np.argsort(totals, kind='stable'):
    members = np.flatnonzero(groups[:, group] & open_)
    missing = int(wanted[group] - (groups[:, group] & chosen).sum())
    # First those that bring other classes the least above their share.
    full = groups[members].astype(int) @ (groups[chosen].sum(axis=0) >= wanted)
    taken = members[np.argsort(full, kind='stable')][: max(missing, 0)]
    chosen[taken] = True
    open_[members] = False
  result = np.zeros(len(order), bool)
  result[order] = chosen
  return result


def only_in_one(labels: np.ndarray, chosen: np.ndarray, classes: Sequence[str]) -> list[str]:
  """The classes that one of the two parts does not show."""
  missing = ~(labels[chosen].any(axis=0) & labels[~chosen].any(axis=0))
  return [classes[k] for k in np.flatnonzero(missing).tolist()]
