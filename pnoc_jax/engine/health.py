"""Tells of a training or a product that looks dead, while it runs, and what can be done."""

import collections
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from pnoc_jax.io import records

FILE = 'health.json'
"""What was told, of a stage; the report shows it."""
_MARGIN = 0.99  # So far below what is learnt without an image a loss must fall.
_LOGS = 5  # As many logged values are taken together.
_SHARE = 0.3  # Of the steps; before it nothing is told.
_IMAGES = 10  # With fewer images of a class, empty maps are no rule.
_REMEDIES = {
  'loss/cls': 'is the learning rate too low or too high ({name}.optim.lr), did the pretrained '
  'weights load ({name}.init), do the labels belong to these images?',
  'loss/noc': 'it does not judge any more: lower its pace ({name}.noc_lr, {name}.noc_every) or '
  'erase less ({name}.threshold)',
}
_OTHERS = 'is the learning rate too low or too high ({name}.optim.lr), are its targets empty?'

Chance = Mapping[str, Callable[[int], float]]
"""By metric: what a network scores at a step that knows the classes' shares and sees no image."""


def chance(targets: np.ndarray, weights: np.ndarray | None = None) -> float:
  """The lowest multi-label loss of answers that do not depend on the image.

  Args:
    targets: f[N, K] within 0 and 1.
    weights: f[N], how often each is drawn; by default all alike.

  Returns:
    The mean over classes of the entropy of their mean target, in nats.
  """
  mean = np.average(targets.astype(np.float64), axis=0, weights=weights)
  share = np.clip(mean, 1e-12, 1 - 1e-12)
  return float(-(share * np.log(share) + (1 - share) * np.log1p(-share)).mean())


class Losses:
  """Looks at the losses that are logged; each that stays high is told of once."""

  def __init__(
    self,
    name: str,
    total_steps: int,
    chance: Chance | None,
    *,
    before: Iterable[Mapping[str, Any]] = (),
  ):
    """Notes what losses are compared with.

    Args:
      name: of the stage.
      total_steps: of the training.
      chance: of the losses of labels; empty for other networks, whose `loss/total` is compared with
        its own start. None compares nothing.
      before: the lines of the log up to where a training is resumed: what followed from them was
        told then.
    """
    self._name, self._total, self._chance = name, total_steps, chance or {}
    watched = () if chance is None else tuple(chance) or ('loss/total',)
    self._recent = {x: collections.deque(maxlen=_LOGS) for x in watched}
    self._first: dict[str, float] = {}
    self._told: set[str] = set()
    for line in before:
      self.look(line['step'], line)

  def look(self, step: int, metrics: Mapping[str, float]) -> list[str]:
    """What is to be told after a step's metrics; empty for nearly all."""
    said = []
    for key, recent in self._recent.items():
      value = metrics.get(key)
      if not isinstance(value, int | float):  # A log that is resumed can hold anything.
        continue
      if self._chance:
        bound = self._chance[key](step - 1)
      else:
        bound = self._first.setdefault(key, value)
      recent.append(value / max(bound, 1e-12))
      late = step >= _SHARE * self._total and len(recent) == _LOGS
      if key in self._told or not late or np.mean(recent) < _MARGIN:
        continue
      self._told.add(key)
      than = "that of the classes' shares without an image" if self._chance else 'at its start'
      remedy = _REMEDIES.get(key, _OTHERS).format(name=self._name)
      said.append(
        f'{self._name}: {key} is {value:.3g} at step {step} of {self._total}, no lower than '
        f'{than} ({bound:.3g}); {remedy}'
      )
    return said


class Maps:
  """Counts the images of each class whose map is 0 everywhere, of those that a call makes."""

  def __init__(self, classes: tuple[str, ...]):
    """Begins with no image of the classes."""
    self._classes = classes
    self._seen, self._empty = np.zeros((2, len(classes)), int)

  def add(self, present: np.ndarray, maps: np.ndarray) -> None:
    """Adds an image's maps f[n, h, w] of the classes i[n]."""
    self._seen[present] += 1
    self._empty[present] += maps.max(axis=(1, 2)) <= 0

  def told(self, name: str) -> list[str]:
    """What is to be told of the stage in the end."""
    dead = (self._seen >= _IMAGES) & (self._empty == self._seen)
    return [
      f'{name}: the maps of {self._classes[k]} are 0 everywhere in all {self._seen[k]} images with '
      'it that this call looked at: the network never learnt the class; are there enough labels of '
      'it (generator.draw=balanced, generator.class_weight=balanced), and are they right?'
      for k in np.flatnonzero(dead).tolist()
    ]


def keep(out: pathlib.Path, said: list[str]) -> None:
  """Adds what was told to the stage's file."""
  if said:
    file = out / FILE
    known = records.read_json(file) if file.is_file() else []
    known = known if isinstance(known, list) else []  # Somebody else made it.
    records.write_json(file, [*known, *(x for x in said if x not in known)])
