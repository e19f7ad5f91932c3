"""What a stage is: a function from files to files, with a record of what it was made from."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pnoc_jax.data import info
from pnoc_jax.engine.runtime import Runtime


@dataclasses.dataclass(frozen=True)
class Stage:
  """One step of the pipeline.

  Attributes:
    name: its directory's and its config field's name.
    needs: config -> names of the stages whose products it reads.
    settings: config -> the part of the config that its product depends on.
    run: `(config, inputs, out, runtime) -> facts`; reads the directories `inputs[name]`, writes
      below `out`, and continues what an interrupted call left there. The facts, a dict or None,
      are kept in the record that it is done.
    describe: (config, training split) -> a few words on its size for the plan.
    check: `(config, inputs, training split, runtime) -> None`; raises UserError for what is wrong
      with files that the stage will read, before any work; `inputs` holds what is there already.
  """

  name: str
  needs: Callable[[Any], tuple[str, ...]]
  settings: Callable[[Any], dict[str, Any]]
  run: Callable[[Any, dict[str, Path], Path, Runtime], dict[str, Any] | None]
  describe: Callable[[Any, info.Source], str]
  check: Callable[[Any, dict[str, Path], info.Source, Runtime], None] = lambda *_: None
