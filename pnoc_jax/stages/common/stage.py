"""What a stage is: a function from files to files, and all that others ask of it."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pnoc_jax.data import info
from pnoc_jax.engine import memory as memory_lib
from pnoc_jax.engine import settings
from pnoc_jax.engine.runtime import Context
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.report import examples
from pnoc_jax.stages.common.scores import Split

if TYPE_CHECKING:
  from pnoc_jax.config import PipelineConfig

  Memory = Callable[[PipelineConfig, info.DatasetInfo, memory_lib.Load], memory_lib.Memory]
else:
  PipelineConfig = Any  # It stands above the stages: they know its type alone.

ALL = ('*',)
"""The `Stage.looks` of a stage that gathers what the others made: it sees the whole config."""

# Bytes on the disk to a pixel, measured on products of photographs.
GREY_RATE, MASK_RATE = 0.25, 0.03


@dataclasses.dataclass(frozen=True)
class Score:
  """One way to measure a stage's product, against masks or, as a proxy, without them.

  Attributes:
    name: of the score and of its files, `<name>_<split>.json`.
    title: for headings.
    measure: `(split, directories of stages) -> what JSON can hold`, in percent.
    splits: config -> the splits that are scored, of those that the product is made of; all of
      them by default.
    reads: config -> dotted fields beyond the product that the score depends on.
    needs: other stages whose products it reads where they are there.
    headline: whether the front of the report shows it.
    everything: whether the product is also of images without a label; else a split in which no
      image has one has no score.
    masks: whether it compares with masks; else it is taken of splits that have none, as a proxy
      that no table sets beside a score.
  """

  name: str
  title: str
  measure: Callable[[Split, Mapping[str, Path]], dict[str, Any]]
  splits: 'Callable[[PipelineConfig], tuple[str, ...]] | None' = None
  reads: 'Callable[[PipelineConfig], tuple[str, ...]]' = lambda config: ()
  needs: tuple[str, ...] = ()
  headline: bool = False
  everything: bool = False
  masks: bool = True


@dataclasses.dataclass(frozen=True)
class Stage:
  """One step of the pipeline. It is registered by its field of `config.PipelineConfig`.

  Attributes:
    name: of its directory and of its config field.
    config: the class of its config.
    run: `context -> facts`; reads the directories `context.inputs`, writes below `context.out`, and
      continues what an interrupted call left there. The facts, a dict or None, are kept in the
      record that it is done.
    describe: (config, training split) -> a few words on its size for the plan.
    title: of its product, for headings of the report.
    training_title: of the network that it trains, for headings; empty where it trains none.
    needs: config -> names of the stages whose products it reads.
    reads: config -> dotted fields that its product depends on; by default all of its own config.
      Together with the seed and the data set they are its fingerprint.
    looks: dotted fields that checks, measurements and words may read beside them: its product must
      not depend on these.
    check: raises UserError, before any work, for what is wrong with files that it will read;
      `context.inputs` holds what is there already.
    faults: config -> what is wrong with it, in words, without data or devices.
    warnings: config -> what can run, but is hardly meant, in words.
    splits: config -> the splits of which it makes a file an image.
    scores: how its product is measured.
    figures: draws its product of a split for the report, or None.
    sample: its product of one image, as the report's first part shows and scores it, or None.
    memory: (config, data set, load) -> what its training holds on a device, or None.
    programs: context -> what it will run on devices, with shapes. Nothing is computed, and of the
      directories in `context.inputs` nothing is read.
    work: (context, images) -> what each image in work holds while it makes a file of each, of all
      that it does; or None. Of the directories in `context.inputs` nothing is read.
    disk: (pixels, pixels times classes) of a split's images -> bytes of its product.
  """

  name: str
  config: type
  run: Callable[[Context], dict[str, Any] | None]
  describe: 'Callable[[PipelineConfig, info.Source], str]'
  title: str = ''
  training_title: str = ''
  needs: 'Callable[[PipelineConfig], tuple[str, ...]]' = lambda config: ()
  reads: 'Callable[[PipelineConfig], tuple[str, ...]] | None' = None
  looks: tuple[str, ...] = ()
  check: Callable[[Context], None] = lambda context: None
  faults: 'Callable[[PipelineConfig], list[str]]' = lambda config: []
  warnings: 'Callable[[PipelineConfig], list[str]]' = lambda config: []
  splits: 'Callable[[PipelineConfig], tuple[str, ...]]' = lambda config: ()
  scores: tuple[Score, ...] = ()
  figures: Callable[[examples.Look, str], str] | None = None
  sample: examples.ViewOf | None = None
  memory: 'Memory | None' = None
  programs: Callable[[Context], list[compiler.Call]] = lambda context: []
  work: Callable[[Context, memory_lib.Images], tuple[memory_lib.Work, ...]] | None = None
  disk: Callable[[float, float], float] | None = None

  def declared(self, config: 'PipelineConfig') -> tuple[str, ...]:
    """The dotted fields that its product depends on."""
    return self.reads(config) if self.reads else (self.name,)

  def lookup(self, config: 'PipelineConfig', field: str) -> Any:
    """The value of a dotted field that it declares.

    Raises:
      ValueError: the config has no such field.
    """
    try:
      return settings.lookup(config, field)
    except AttributeError as error:
      raise ValueError(
        f'the stage {self.name} declares {field}, which is no field of the config ({error})'
      ) from error

  def view(self, config: 'PipelineConfig') -> 'PipelineConfig':
    """The config as the stage sees it; any other field raises `UndeclaredRead`."""
    if self.looks == ALL:
      return config
    allowed = (*self.declared(config), *self.looks, 'seed', 'dataset')
    for field in allowed:
      self.lookup(config, field)
    return View(config, self.name, allowed)  # type: ignore[return-value]


def field(stage: Stage) -> Any:
  """The config field that makes a stage part of the pipeline, at its place."""
  return dataclasses.field(default_factory=stage.config, metadata={'stage': stage})


def stages(config: Any) -> tuple[Stage, ...]:
  """The stages of a config, or of a class of configs, in order."""
  found = []
  for field in dataclasses.fields(config):
    stage = field.metadata.get('stage')
    if stage is not None and stage.name != field.name:
      raise ValueError(f'the config field {field.name} holds the stage {stage.name}: name it so')
    found += [stage] if stage is not None else []
  return tuple(found)


class UndeclaredRead(RuntimeError):
  """A stage read a config field that it did not declare: its fingerprint would lack it."""


class View:
  """A config of which only declared fields can be read."""

  def __init__(self, config: Any, stage: str, allowed: Collection[str], prefix: str = ''):
    """Wraps a config.

    Args:
      config: the config, or a part of it.
      stage: who looks.
      allowed: dotted fields of the whole config; all below them can be read, too.
      prefix: of the part, with a dot at its end.
    """
    self._config, self._stage, self._allowed, self._prefix = config, stage, allowed, prefix

  def __getattr__(self, name: str) -> Any:
    value, path = getattr(self._config, name), f'{self._prefix}{name}'
    if any(f'{path}.'.startswith(f'{field}.') for field in self._allowed):
      return value
    if any(field.startswith(f'{path}.') for field in self._allowed):
      return View(value, self._stage, self._allowed, f'{path}.')
    raise UndeclaredRead(
      f'the stage {self._stage} reads {path}, which it does not declare: name it in Stage.reads if '
      'the product depends on it, else in Stage.looks'
    )
