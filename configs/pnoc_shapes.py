"""P-NOC on `shapes`, the embedded synthetic data set: the whole run on a laptop.

    python launch/run.py --config=configs/pnoc_shapes.py             # 5 to 7 minutes on 2 cores
    python launch/run.py --config=configs/pnoc_shapes.py:smoke       # 1 to 1.5 minutes

The same command again resumes. Results are in runs/pnoc_shapes/report/index.html.

Obtained: prior mIoU 68.3 on train and 67.2 on val (another run, on another number of threads: 66.5
and 65.1); a plain classifier's priors have 50.3 and 49.9 with the same seed.
"""

from configs import _base
from pnoc_jax import config as config_lib
from pnoc_jax.data import info, transforms
from pnoc_jax.optim import optimizer


def get_config(argument: str | None = None) -> config_lib.PipelineConfig:
  """The config; `:smoke` is a run of a minute that shows that everything works."""
  words = _base.parse(argument, {'smoke': 'a run of a minute'})
  config = _base.base_config('pnoc_shapes')
  config.dataset.name = info.DatasetName.SHAPES
  size = config.dataset.shapes.size
  for training in (config.classifier, config.generator):
    training.model.backbone = 'resnest_tiny'
    training.model.output_stride = 8
    training.batch_size = 16
    training.smoothing = 0.0
    training.eval_size = size
    training.optim.rule = optimizer.Rule.ADAM
    training.optim.lr = 3e-3
    training.optim.power = 0.9
    training.optim.warmup = 20
    training.optim.weight_decay = 0.0
    training.optim.scratch_lr = 1.0
    training.optim.bias_lr = 1.0
    training.optim.accumulate = 1
    training.transform.min_size = training.transform.max_size = training.transform.crop = size
    training.transform.shift = 6
    training.transform.augment = transforms.Augment.LIGHT
  config.classifier.epochs = 8
  config.generator.epochs = 10
  # Nets trained at one small scale lose by others.
  config.priors.scales = (1.0,)
  config.priors.batch_size = 32
  if 'smoke' in words:
    config.name = 'pnoc_shapes_smoke'
    config.dataset.shapes.train, config.dataset.shapes.val = 64, 32
    config.classifier.epochs = config.generator.epochs = 1
  return config
