"""P-NOC on `shapes`, the embedded synthetic data set: labels to segmentation on a laptop.

    python launch/run.py --config=configs/pnoc_shapes.py             # 5 to 12 minutes on 2 cores
    python launch/run.py --config=configs/pnoc_shapes.py:smoke       # one epoch each, no PoolNet

The same command again resumes. Results are in runs/pnoc_shapes/report/index.html.

Obtained (train / val mIoU): priors 68.1 / 66.9, after the CRF 89.9 / 88.1, pseudo masks
90.9 / 89.7, predictions 91.0 on val. Another run with seed 0 (docs/results.md): priors
68.9, pseudo masks 93.8, predictions 91.5, beside 93.1 of the same network trained
on the true masks.
"""

from configs import _base
from pnoc_jax import config as config_lib
from pnoc_jax.data.augment import transforms
from pnoc_jax.engine import settings
from pnoc_jax.optim import optimizer
from pnoc_jax.stages import saliency
from pnoc_jax.stages.common import maps


def get_config(argument: str | None = None) -> config_lib.PipelineConfig:
  """The config; `:smoke` is a run of two minutes that shows that everything works."""
  words = _base.parse(argument, {'smoke': 'a run of two minutes'})
  config = _base.base_config('pnoc_shapes')
  config.dataset.name = 'shapes'
  trainings = (*_base.networks(config), config.saliency)
  for training in trainings:
    _small(training, config.dataset.shapes.size)
  for following in trainings[2:]:
    # Nothing is pretrained here but the generator.
    following.start = settings.BackboneStart.GENERATOR
  config.classifier.smoothing = config.generator.smoothing = 0.0
  config.classifier.epochs = 8
  config.generator.epochs = 10
  # Priors of three seeds: 68.1 in the mean, with 1 (the generator's own rate) 65.3.
  config.generator.noc_lr = 0.3
  # Nets trained at one small scale lose by others.
  for inference in (config.priors, config.saliency_priors, config.predictions):
    inference.scales = (1.0,)
    inference.batch_size = 32
  _refine(config)
  config.segmentation.epochs = 12
  config.segmentation.head.width, config.segmentation.head.low_width = 32, 8
  config.segmentation.head.rates = (1, 2, 3)
  config.predictions.crf.steps = 10
  config.evaluation.of = config_lib.SCORED
  config.evaluation.crf_splits = config.priors.splits
  if 'smoke' in words:
    config.name = 'pnoc_shapes_smoke'
    config.dataset.shapes.train, config.dataset.shapes.val = 64, 32
    for training in trainings:
      training.epochs = 1
    config.runtime.quick_compiling = True
    # A few steps teach nothing.
    config.c2am.min_hint_mean = 0.0
    # Without PoolNet, which compiles longest.
    config.affinity_labels.saliency = maps.Saliency.PRIORS
    config.evaluation.of = tuple(name for name in config_lib.SCORED if name != 'saliency')
  return config


def _small(training: settings.TrainingConfig, size: int) -> None:
  training.model.backbone = 'resnest_tiny'
  training.model.output_stride = 8
  training.batch_size = 16
  training.eval_size = size
  training.optim.rule = optimizer.Rule.ADAM
  training.optim.lr = 3e-3
  training.optim.power = 0.9
  training.optim.warmup = 20
  training.optim.weight_decay = 0.0
  training.optim.scratch_lr = 1.0
  training.optim.bias_lr = 1.0
  training.optim.accumulate = 1
  training.transform = transforms.TransformConfig(
    min_size=size, max_size=size, crop=size, shift=6, augment=transforms.Augment.LIGHT
  )


def _refine(config: config_lib.PipelineConfig) -> None:
  """What turns priors into pseudo masks, in the sizes of these images."""
  config.c2am.epochs = 4
  config.c2am.optim.lr, config.c2am.optim.warmup = 1e-3, 0
  # 1, the paper's, leaves this small net with less of the objects.
  config.c2am.lambda_h = 4.0
  # At the paper's 0.4 a class whose maps are low is hinted at its heads alone.
  config.c2am.threshold = 0.25
  config.saliency.epochs, config.saliency.width = 4, 8
  config.saliency.optim.lr, config.saliency.optim.warmup = 2e-3, 0
  config.saliency.optim.weight_decay = 5e-4
  config.saliency.transform = saliency.SaliencyConfig().transform
  config.saliency.tiny = 0
  config.saliency.inference.batch_size = 32
  config.affinity_labels.saliency = maps.Saliency.NETWORK
  config.affinity.epochs, config.affinity.radius = 4, 5
  config.affinity.optim.lr = 3e-2
  config.affinity.transform.augment = transforms.Augment.NONE
  # The grid is 32 cells wide where a photograph's has 125: 8 steps reach as far as 256 do there.
  config.random_walk.exp_times = 3
  config.pseudo_masks.threshold = 0.2
  for refining in (
    config.saliency_priors,
    config.affinity_labels,
    config.pseudo_masks,
    config.evaluation,
  ):
    # Objects are a tenth of a photograph's in width, and striped.
    crf = refining.crf
    crf.bilateral_sxy, crf.bilateral_srgb = 30.0, 13.0
  # The default, one step at .9, is for maps of a walk on large photographs.
  config.pseudo_masks.crf.steps, config.pseudo_masks.crf.confidence = 10, 0.7
