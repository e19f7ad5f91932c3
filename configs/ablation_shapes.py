"""The five CAM methods on `shapes`, three seeds each: the form of the paper's Table 1.

    python launch/run.py --config=configs/ablation_shapes.py         # 15 runs, 37 min on one core
    python launch/run.py --config=configs/ablation_shapes.py:smoke   # one epoch, one seed

Runs are in runs/ablation_shapes/<method>-<seed>; the table is printed after each of them and lies
in runs/ablation_shapes/priors_{train,val}.md, the pictures side by side in report/index.html. The
same command again resumes.

Obtained (docs/results.md), prior mIoU of train in the mean of three seeds: vanilla 48.8, Puzzle-CAM
51.4, OC-CSE 55.3, P-OC 66.4, P-NOC 68.1; seeds differ by more than the last two.
"""

from configs import _base, pnoc_shapes
from pnoc_jax import config as config_lib

SEEDS = (0, 1, 2)


def get_config(argument: str | None = None) -> config_lib.PipelineConfig:
  """The sweep; `:smoke` is one epoch of each method."""
  words = _base.parse(argument, {'smoke': 'one epoch, one seed'})
  config = pnoc_shapes.get_config(argument)
  config.name = 'ablation_shapes_smoke' if 'smoke' in words else 'ablation_shapes'
  # The maps alone.
  config.evaluation.of, config.evaluation.crf_splits = ('priors',), ()
  variants = []
  for seed in SEEDS[:1] if 'smoke' in words else SEEDS:
    trained = f'{{workdir}}/poc-{seed}/classifier'
    # P-OC first: the other methods that need a classifier take its.
    for method in ('poc', 'pnoc', 'vanilla', 'occse', 'puzzle'):
      overrides = {'seed': seed, 'generator.method': method}
      if method in ('pnoc', 'occse'):
        overrides['inputs.classifier'] = trained
      variants.append(config_lib.Variant(method, f'{method}-{seed}', overrides))
  config.sweep = tuple(variants)
  return config
