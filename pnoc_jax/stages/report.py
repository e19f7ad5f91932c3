"""Stage `report`: one page that shows the run."""

import dataclasses
from pathlib import Path

from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.parallel import hosts
from pnoc_jax.report import build
from pnoc_jax.stages.common import stage


@dataclasses.dataclass(slots=True)
class ReportConfig:
  """The report.

  Attributes:
    images: images shown with their maps.
  """

  images: int = 12


def run(config, inputs: dict[str, Path], out: Path, runtime: Runtime) -> None:
  """Writes `<out>/index.html` from the run's files."""
  del inputs, out
  if hosts.is_main():
    page = build.build(runtime.workdir, images=config.report.images)
    print(f'  {page}')
  hosts.barrier('report')


STAGE = stage.Stage(
  name='report',
  needs=lambda config: ('evaluation',),
  settings=lambda config: {'report': config.report},
  run=run,
  describe=lambda config, source: 'one HTML page',
)
