"""Stage `report`: one page that shows the run."""

import dataclasses

from pnoc_jax.engine.runtime import Context
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


def run(context: Context) -> None:
  """Writes `<out>/index.html` from the run's files."""
  if hosts.is_main():
    config = context.config
    stages = stage.stages(config)
    page = build.build(context.runtime.workdir, stages, images=config.report.images)
    print(f'  {page}')
  hosts.barrier('report')


STAGE = stage.Stage(
  name='report',
  config=ReportConfig,
  run=run,
  describe=lambda config, source: 'one HTML page',
  needs=lambda config: ('evaluation',),
  looks=stage.ALL,
)
