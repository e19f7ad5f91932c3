"""Settings that several stages share: the network, its optimiser, its training."""

import copy
import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from pnoc_jax.data.augment import mixing, transforms
from pnoc_jax.data.streams import sampling
from pnoc_jax.errors import UserError, did_you_mean
from pnoc_jax.nn import backbones, layers
from pnoc_jax.optim import optimizer

Config = TypeVar('Config')
_LARGEST_SCALE = 16.0  # Of an image's sides.


class Precision(enum.Enum):
  """Arithmetic of the networks; params, statistics, heads and losses are float32 in both.

  Differs from the reference: mixed precision is bfloat16; because its float16 needs a scaled loss.
  """

  FLOAT32 = 'float32'
  BFLOAT16 = 'bfloat16'


def field(default: Any, *, product: bool = True) -> Any:
  """A config field; `product=False` says that the stage's product does not depend on it."""
  metadata = {'product': product}
  if callable(default):
    return dataclasses.field(default_factory=default, metadata=metadata)
  return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(slots=True)
class ModelConfig:
  """A classification network.

  Attributes:
    backbone: a name in `nn.backbones`.
    output_stride: pixels to a cell of the maps: 8, 16 or 32; of a ViT the side of its patches.
    last_stage: the backbone ends after it ('layer3' is the field's "C4").
    norm: BatchNorm on batch statistics, or frozen (running statistics, affine not trained).
    frozen_stages: stages, counted from the stem, that do not train.
    precision: arithmetic of the backbone.
    remat: recompute each block in the backward pass instead of storing it.
    scan: run identical blocks of a stage in one loop, with the same parameters: it compiles faster
      and moves more bytes, so that it pays where a run is short or memory is scarce (with `remat`).
  """

  backbone: str = 'resnest269'
  output_stride: int = 16
  last_stage: str = 'layer4'
  norm: layers.Norm = layers.Norm.BATCH
  frozen_stages: int = 0
  precision: Precision = Precision.FLOAT32
  remat: bool = field(False, product=False)
  scan: bool = field(False, product=False)


@dataclasses.dataclass(slots=True)
class OptimConfig:
  """An optimiser.

  Attributes:
    rule: the update rule.
    lr: learning rate of the pretrained weights at its peak (the paper: 0.01 on VOC, 0.005 on COCO).
    power: exponent of the polynomial decay to 0; 1 is the paper's linear decay.
    warmup: optimiser steps of linear warm-up.
    momentum: of `sgd`; 0 as in the reference's classification networks.
    nesterov: Nesterov's form of it.
    weight_decay: of weights and BatchNorm scales; biases do not decay.
    scratch_lr: factor on `lr` for layers without pretrained weights.
    bias_lr: factor on `lr` for biases.
    clip_norm: largest global norm of the gradients, or None.
    accumulate: micro-batches to an optimiser step.
    grad_mean: average the accumulated gradients; the reference sums them.
    ema: decay of a moving average of the params, used for inference; None keeps none.
  """

  rule: optimizer.Rule = optimizer.Rule.SGD
  lr: float = 0.01
  power: float = 1.0
  warmup: int = 0
  momentum: float = 0.0
  nesterov: bool = False
  weight_decay: float = 1e-4
  scratch_lr: float = 10.0
  bias_lr: float = 2.0
  clip_norm: float | None = None
  accumulate: int = 1
  grad_mean: bool = False
  ema: float | None = None


class BackboneStart(enum.Enum):
  """Whose backbone a network starts from; its new layers are always drawn.

  Attributes:
    PRETRAINED: the weights that `init` names, or random ones.
    CLASSIFIER: this run's classifier.
    GENERATOR: this run's CAM generator.
  """

  PRETRAINED = 'pretrained'
  CLASSIFIER = 'classifier'
  GENERATOR = 'generator'


@dataclasses.dataclass(slots=True)
class TrainingConfig:
  """Training of a network.

  Attributes:
    model: the network.
    optim: its optimiser.
    transform: the training images' augmentation.
    init: pretrained weights: a directory or file, `hub:OWNER/NAME` (e.g. hub:timm/resnest101e.in1k)
      for a download, with `@COMMIT` to pin it, or empty for random ones.
    epochs: of `floor(images / batch_size)` micro-steps.
    min_steps: micro-steps at least: a set of few images is shown in more epochs.
    batch_size: images to a micro-step, over all devices.
    eval_every: epochs between measurements, and between the maps of a few images that classifier
      and generator keep for the report, with what a judge sees of them; 0 for none of these. Never
      used to choose weights. Where `min_steps` asks for more epochs, the distance grows with them.
    eval_size: side in pixels of the square that measured images are fitted to.
    eval_split: split that is measured; empty for the one that trains (of the segmentation network:
      the data set's validation split). A split without masks has no curve.
    eval_batches: batches measured at most; 0 for all.
  """

  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
  transform: transforms.TransformConfig = dataclasses.field(
    default_factory=transforms.TransformConfig
  )
  init: str = field('', product=False)
  epochs: int = 15
  min_steps: int = 0
  batch_size: int = 32
  eval_every: int = field(1, product=False)
  eval_size: int = field(512, product=False)
  eval_split: str = field('', product=False)
  eval_batches: int = field(0, product=False)

  def epochs_of(self, steps: int) -> int:
    """The number of epochs where an epoch has so many micro-steps."""
    return max(self.epochs, -(-self.min_steps // steps))


@dataclasses.dataclass(slots=True)
class CamTrainingConfig(TrainingConfig):
  """Training of a classification network whose maps are wanted.

  Attributes:
    smoothing: label smoothing of all classification targets.
    draw: which images an epoch shows.
    class_weight: factors of the classes in all classification terms, those of erased images and of
      the noc included.
    mix: mixing of images and labels. Of a mixed label, only a class above one half can be erased,
      and masks by class are weighted by it.
  """

  smoothing: float = 0.0
  draw: sampling.Sampling = sampling.Sampling.UNIFORM
  class_weight: sampling.ClassWeight = sampling.ClassWeight.NONE
  mix: mixing.MixConfig = dataclasses.field(default_factory=mixing.MixConfig)


@dataclasses.dataclass(slots=True)
class StageTrainingConfig(TrainingConfig):
  """Training of a network that follows the generator.

  Attributes:
    start: whose backbone it starts from.
  """

  start: BackboneStart = BackboneStart.PRETRAINED


@dataclasses.dataclass(slots=True)
class InferenceConfig:
  """Shapes of an inference; no product depends on them.

  Attributes:
    batch_size: images at a time, over this process's devices.
    multiple: pixels that heights and widths of padded shapes are multiples of.
    max_buckets: padded shapes at most, for each scale.
  """

  batch_size: int = field(8, product=False)
  multiple: int = field(32, product=False)
  max_buckets: int = field(4, product=False)


@dataclasses.dataclass(slots=True)
class MultiScaleConfig(InferenceConfig):
  """Inference at several scales.

  Attributes:
    scales: factors on the image's size, whose maps are joined.
    resize_to: side of a square that images are squeezed to before they are scaled; 0 for none.
    flip: also infer the mirror image.
  """

  scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
  resize_to: int = 0
  flip: bool = True


def training_faults(name: str, config: TrainingConfig) -> list[str]:
  """What is wrong with a training's settings, in words.

  Args:
    name: the field of the run's config that holds them.
    config: the settings.
  """
  faults = []
  model, transform, optim = config.model, config.transform, config.optim
  if model.backbone not in backbones.names():
    known = backbones.names()
    faults.append(
      f'{name}.model.backbone is {model.backbone!r}; known: {", ".join(known)}'
      + did_you_mean(model.backbone, known)
    )
  elif name != 'saliency' and not backbones.info(model.backbone).plain_grid:
    faults.append(
      f"{name}.model.backbone is {model.backbone!r}, PoolNet's: its grid is known to the "
      'stage saliency alone; name resnet50 here'
    )
  elif model.output_stride not in (strides := backbones.info(model.backbone).output_strides):
    known = ' or '.join(map(str, strides))
    faults.append(
      f'{name}.model.output_stride is {model.output_stride}; of {model.backbone} it is {known}'
    )
  if config.epochs < 1 or config.batch_size < 1:
    faults.append(f'{name}.epochs and {name}.batch_size must be at least 1')
  if config.min_steps < 0:
    faults.append(f'{name}.min_steps is {config.min_steps}; 0 asks for none')
  for part, least in (('eval_every', 0), ('eval_size', 1), ('eval_batches', 0)):
    if getattr(config, part) < least:
      faults.append(f'{name}.{part} is {getattr(config, part)}; it is at least {least}')
  for part in ('lr', 'weight_decay'):
    if getattr(optim, part) < 0:
      faults.append(f'{name}.optim.{part} is {getattr(optim, part)}; it is at least 0')
  smoothing = getattr(config, 'smoothing', 0.0)
  if not 0 <= smoothing < 1:
    faults.append(f'{name}.smoothing is {smoothing}; it lies in [0, 1)')
  if isinstance(config, CamTrainingConfig):
    faults += [f'{name}.mix.{fault}' for fault in mixing.faults(config.mix)]
  if transform.min_size > transform.max_size:
    faults.append(
      f'{name}.transform.min_size {transform.min_size} is above max_size {transform.max_size}'
    )
  if optim.rule is optimizer.Rule.SGD and optim.nesterov and not optim.momentum:
    faults.append(f'{name}.optim.nesterov needs a momentum; {name}.optim.momentum is 0')
  if optim.accumulate < 1:
    faults.append(f'{name}.optim.accumulate must be at least 1')
  if optim.ema is not None and not 0 < optim.ema < 1:
    faults.append(f'{name}.optim.ema is {optim.ema}; it lies in (0, 1), or is None')
  return faults


def inference_faults(name: str, config: InferenceConfig) -> list[str]:
  """What is wrong with how a stage infers, in words.

  Args:
    name: the field of the run's config that holds it, e.g. `priors`.
    config: the settings.
  """
  found = []
  if isinstance(config, MultiScaleConfig):
    if not config.scales or not all(0 < x <= _LARGEST_SCALE for x in config.scales):
      found.append(
        f'{name}.scales is {config.scales}; name one or more positive scales, up to '
        f'{_LARGEST_SCALE:g}'
      )
    if config.resize_to < 0:
      found.append(f'{name}.resize_to is {config.resize_to}; it is a side in pixels, or 0 for none')
  for part in ('batch_size', 'multiple', 'max_buckets'):
    if getattr(config, part) < 1:
      found.append(f'{name}.{part} is {getattr(config, part)}; it is at least 1')
  return found


def as_dict(config: Any, *, product_only: bool = False) -> Any:
  """Turns a config into what JSON can hold.

  Args:
    config: a dataclass, enum, sequence, mapping or scalar.
    product_only: leave out the fields marked as not changing the product.

  Returns:
    Nested dicts and lists; enums by value.
  """
  if dataclasses.is_dataclass(config):
    return {
      f.name: as_dict(getattr(config, f.name), product_only=product_only)
      for f in dataclasses.fields(config)
      if not product_only or f.metadata.get('product', True)
    }
  if isinstance(config, enum.Enum):
    return config.value
  if isinstance(config, dict):
    return {str(k): as_dict(v, product_only=product_only) for k, v in config.items()}
  if isinstance(config, (tuple, list)):
    return [as_dict(x, product_only=product_only) for x in config]
  if isinstance(config, np.generic):
    return config.item()
  return config


def lookup(config: Any, field: str) -> Any:
  """The value of a dotted field of a config."""
  for name in field.split('.'):
    config = getattr(config, name)
  return config


def override(config: Config, fields: Mapping[str, Any]) -> Config:
  """Returns a copy of a config with dotted fields replaced.

  Raises:
    UserError: there is no such field.
  """
  result = copy.deepcopy(config)
  for field, value in fields.items():
    parents, _, name = field.rpartition('.')
    try:
      holder = lookup(result, parents) if parents else result
      getattr(holder, name)
    except AttributeError as error:
      raise UserError(f'{field} is no field of the config') from error
    setattr(holder, name, value)
  return result
