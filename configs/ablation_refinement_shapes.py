"""What each refinement adds, on `shapes`, three seeds: the forms of the paper's Tables 2 and 3.

    python launch/run.py --config=configs/ablation_refinement_shapes.py         # fifteen runs
    python launch/run.py --config=configs/ablation_refinement_shapes.py:smoke   # one seed

Table 2: pseudo masks of P-OC and P-NOC after the random walk, from affinity labels by thresholds
alone and with the saliency of C2AM-H. Table 3: the saliency of C2AM and of C2AM-H, of the masks
after the CRF and of PoolNet's maps. Runs are in runs/ablation_refinement_shapes/<variant>-<seed>;
the tables are printed after each of them and lie beside them as <product>_<split>.md. The same
command again resumes.

Obtained (docs/results.md), mean of three seeds: P-NOC's priors 68.1, after the CRF 88.6, pseudo
masks 87.3 (without saliency 85.3); P-OC's 66.4, 88.8, 77.8 (81.4). Saliency, in its two classes:
C2AM 46.6, C2AM-H 90.7, PoolNet 86.2.
"""

from typing import Any

from configs import _base, pnoc_shapes
from pnoc_jax import config as config_lib
from pnoc_jax.stages import c2am
from pnoc_jax.stages.common import maps

SEEDS = (0, 1, 2)
SALIENCY = ('saliency_priors', 'saliency')
PSEUDO_MASKS = ('priors', 'affinity_labels', 'random_walk', 'pseudo_masks')


def get_config(argument: str | None = None) -> config_lib.PipelineConfig:
  """The sweep; `:smoke` is one seed, one epoch of each network."""
  words = _base.parse(argument, {'smoke': 'one epoch, one seed'})
  smoke = 'smoke' in words
  config = pnoc_shapes.get_config(argument)
  config.name = f'ablation_refinement_shapes{"_smoke" if smoke else ""}'
  config.sweep = tuple(
    variant for seed in (SEEDS[:1] if smoke else SEEDS) for variant in _variants(seed)
  )
  return config


def _variants(seed: int) -> list[config_lib.Variant]:
  """The runs of a seed; each takes what an earlier one has made."""
  variants = []

  def add(group: str, name: str, taken: dict[str, str], overrides: dict[str, Any]) -> None:
    inputs = {f'inputs.{stage}': f'{{workdir}}/{run}/{stage}' for stage, run in taken.items()}
    variants.append(
      config_lib.Variant(group, f'{name}-{seed}', {'seed': seed, **inputs, **overrides})
    )

  for method, title in (('pnoc', 'P-NOC'), ('poc', 'P-OC')):
    full = f'{method}-h-{seed}'
    judge = {} if method == 'pnoc' else {'classifier': f'pnoc-h-{seed}'}
    add(
      f'{title} + C2AM-H',
      f'{method}-h',
      judge,
      {
        'generator.method': method,
        'evaluation.of': PSEUDO_MASKS[:1] + SALIENCY + PSEUDO_MASKS[1:],
      },
    )
    add(
      title,
      method,
      {'generator': full, 'priors': full},
      {
        'generator.method': method,
        'affinity_labels.saliency': maps.Saliency.NONE,
        'affinity_labels.foreground': 0.5,
        'affinity_labels.background': 0.2,
        'evaluation.of': PSEUDO_MASKS,
      },
    )
    if method == 'pnoc':
      add(
        'C2AM',
        'c2am',
        {'generator': full, 'priors': full},
        {'c2am.method': c2am.Hints.C2AM, 'evaluation.of': ('priors', *SALIENCY)},
      )
  return variants
