"""Images that were changed after a stage was made from them: noticed at the next start, and said.

Each stage notes a digest of the files that it reads, beside its settings; `images.json` holds sizes
and times of all files, so that one that changed can be named.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pnoc_jax.data import cache, info
from pnoc_jax.engine import settings
from pnoc_jax.io import records

if TYPE_CHECKING:
  from pnoc_jax.config import PipelineConfig
  from pnoc_jax.runs import graph
  from pnoc_jax.stages.common import stage

FILE = 'images.json'

States = Mapping[str, Mapping[str, list[int]]]
"""{split: {name of a file: size and time of change}}, as JSON has it."""


def look(sources: Mapping[str, info.Source], seen: cache.Seen | None = None) -> States:
  """Sizes and times of the images of each split; nothing of a split that is computed or packed.

  Masks do not count: evaluation alone reads them, and scores again where they changed.

  Args:
    sources: the splits.
    seen: what the check of this start has found out about files.

  Raises:
    UserError: a file is not there.
  """
  return {split: found for split, source in sources.items() if (found := _states(source, seen))}


def _states(source: info.Source, seen: cache.Seen | None) -> dict[str, list[int]]:
  found = {}
  for index in range(len(source)):
    files = source.files(index)
    for path in files[:-1] if source.has_masks else files:
      found[path.name] = list(cache.size_and_time(path, seen))
  return found


def digests(entry: 'stage.Stage', config: 'PipelineConfig', states: States) -> dict[str, str]:
  """{split: digest} of the images that a stage reads."""
  splits = set(entry.splits(config))
  if isinstance(getattr(config, entry.name), settings.TrainingConfig):
    splits.add(config.dataset.train_split)
  return {split: _digest(states[split]) for split in sorted(splits) if split in states}


def _digest(state: Mapping[str, list[int]]) -> str:
  return records.fingerprint(state)[:16]


def note(workdir: Path, states: States) -> None:
  """Keeps sizes and times for later starts."""
  path = workdir / FILE
  if states and (not path.is_file() or records.read_json(path) != states):
    records.write_json(path, states)


def find(workdir: Path, plan: Iterable['graph.Planned'], states: States) -> dict[str, str]:
  """What to say of images that changed after a stage that stays, or goes on, began.

  Args:
    workdir: the run's directory.
    plan: its stages.
    states: of the images as they are.

  Returns:
    {split: a sentence that names one of them, and the stages}.
  """
  concerned: dict[str, list[str]] = {}
  for item in plan:
    for split, old in item.images_then().items():
      if split in states and old != _digest(states[split]):
        concerned.setdefault(split, []).append(item.stage.name)
  path = workdir / FILE
  before = records.read_object(path) if concerned and path.is_file() else {}
  return {
    split: f'{_changed(before.get(split), states[split])} since {", ".join(stages)} began, '
    f'which are not made again: --config.rerun={stages[0]} does so'
    for split, stages in concerned.items()
  }


def _changed(before: Any, now: Mapping[str, list[int]]) -> str:
  if not isinstance(before, dict):
    return 'images have changed'
  other = [name for name, state in now.items() if before.get(name) != state]
  if not other:
    return 'images have changed'
  return f'{len(other)} images have changed, e.g. {other[0]},'
