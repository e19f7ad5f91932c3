"""P-NOC on your own photographs: a directory of images, their labels in a table, optional masks.

    ROOT/classes.txt             one class name a line, background first
    ROOT/image_labels.csv        id,labels      class names separated by spaces
    ROOT/splits/{train,val}.txt  one id a line
    ROOT/images/<id>.jpg         or .jpeg, .png
    ROOT/masks/<id>.png          optional, for evaluation alone: class indices, 255 is ignored

    python launch/run.py --config=configs/pnoc_folder.py --config.dataset.root=ROOT \\
      --config.classifier.init=resnet18.safetensors --config.generator.init=resnet18.safetensors

The network is a ResNet-18 cut after layer3 at 160 px, which trains on a laptop's CPU; its
ImageNet weights, in torchvision's names, are what `init` reads. Larger: any of
`--config.{classifier,generator}.model.backbone=resnest50` and sizes. `:smoke` runs one epoch.

Obtained on 1,137 photographs of six classes (docs/results.md), prior mIoU on 445 others: plain
classifier 36.4, P-OC 34.3, P-NOC 35.5; so P-NOC is above P-OC, but not above the plain classifier.
"""

from configs import _base
from pnoc_jax import config as config_lib
from pnoc_jax.data import info, transforms
from pnoc_jax.optim import optimizer


def get_config(argument: str | None = None) -> config_lib.PipelineConfig:
  """The config; `:smoke` is one epoch of each network."""
  words = _base.parse(argument, {'smoke': 'one epoch of each network'})
  config = _base.base_config('pnoc_folder')
  config.dataset.name = info.DatasetName.FOLDER
  for training in (config.classifier, config.generator):
    training.model.backbone = 'resnet18'
    training.model.last_stage = 'layer3'
    # Stem and layer1 keep their ImageNet weights: half the time of a step, and few images to fit.
    training.model.frozen_stages = 2
    training.batch_size = 16
    training.smoothing = 0.0
    training.eval_size = 224
    training.eval_batches = 12
    training.eval_every = 3
    training.optim.rule = optimizer.Rule.ADAMW
    training.optim.lr = 1e-4
    training.optim.power = 0.9
    training.optim.warmup = 20
    # The trunk's features are small: a head at 10 x its rate learns slowly.
    training.optim.scratch_lr = 50.0
    training.optim.bias_lr = 1.0
    training.optim.accumulate = 1
    training.transform.min_size = 160
    training.transform.max_size = 320
    training.transform.crop = 160
    training.transform.augment = transforms.Augment.COLORJITTER
  config.classifier.epochs = 6
  config.generator.epochs = 12
  # Training shows objects at 0.5 to 1 of their size; a scale of 2 would double the time.
  config.priors.scales = (0.5, 1.0, 1.5)
  # 4, the paper's end, was chosen for deep networks trained long.
  config.generator.lambda_re.end = 1.0
  if 'smoke' in words:
    config.name = 'pnoc_folder_smoke'
    config.classifier.epochs = config.generator.epochs = 1
    config.priors.scales = (1.0,)
  return config
