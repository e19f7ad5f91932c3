"""What the report asks of the stages: its sections, tables and headings derive from their list."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
  from pnoc_jax.report import examples


class Scored(Protocol):
  """A score that is taken of a stage's products."""

  @property
  def name(self) -> str:
    """Its results are the files `evaluation/<name>_<split>.json`."""
    ...

  @property
  def title(self) -> str:
    """What is scored, for headings and tables."""
    ...

  @property
  def headline(self) -> bool:
    """Whether the front of the page shows it."""
    ...

  @property
  def masks(self) -> bool:
    """Whether it compares with masks; else it is a proxy of splits that have none."""
    ...


class Reported(Protocol):
  """A stage, as the report sees it."""

  @property
  def name(self) -> str:
    """Of its directory and of its part of the config."""
    ...

  @property
  def title(self) -> str:
    """Heads the section on its products."""
    ...

  @property
  def training_title(self) -> str:
    """The network that it trains, as in "Training of C2AM"; empty if it trains nothing."""
    ...

  @property
  def scores(self) -> Sequence[Scored]:
    """What is scored of its products."""
    ...

  @property
  def figures(self) -> 'Callable[[examples.Look, str], str] | None':
    """(look, split) -> the HTML on its products of a split, empty where there are none."""
    ...

  @property
  def sample(self) -> 'examples.ViewOf | None':
    """Its product of one image, for the first part of the page and for its own score by image."""
    ...


def scores(stages: Sequence[Reported], *, masks: bool = True) -> dict[str, Scored]:
  """All scores of the stages by their names, in order; or all proxies."""
  every = (score for stage in stages for score in stage.scores)
  return {score.name: score for score in every if score.masks == masks}
