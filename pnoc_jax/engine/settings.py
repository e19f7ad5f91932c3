"""Settings that several stages share: the network, its optimiser, its training."""

import dataclasses
import enum
from typing import Any

import numpy as np

from pnoc_jax.data.augment import mixing, transforms
from pnoc_jax.data.streams import sampling
from pnoc_jax.nn import layers
from pnoc_jax.optim import optimizer


class Precision(enum.Enum):
  """Arithmetic of the networks; params, statistics, heads and losses are float32 in both."""

  FLOAT32 = 'float32'
  BFLOAT16 = 'bfloat16'


def field(default, *, product: bool = True, **keywords):
  """A config field; `product=False` says that the stage's product does not depend on it."""
  metadata = {'product': product}
  if callable(default):
    return dataclasses.field(default_factory=default, metadata=metadata, **keywords)
  return dataclasses.field(default=default, metadata=metadata, **keywords)


@dataclasses.dataclass(slots=True)
class ModelConfig:
  """A classification network.

  Attributes:
    backbone: a name in `nn.backbones`.
    output_stride: pixels to a cell of the maps: 8, 16 or 32.
    last_stage: the backbone ends after it ('layer3' is the field's "C4").
    norm: BatchNorm on batch statistics, or frozen (running statistics, affine not trained).
    frozen_stages: stages, counted from the stem, that do not train.
    precision: arithmetic of the backbone.
    remat: recompute each block in the backward pass instead of storing it.
    scan: run identical blocks of a stage in one loop: compiles faster, same params.
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


class Start(enum.Enum):
  """Whose backbone a network starts from; its new layers are always drawn."""

  PRETRAINED = 'pretrained'
  """The weights that `init` names, or random ones."""
  CLASSIFIER = 'classifier'
  """This run's classifier."""
  GENERATOR = 'generator'
  """This run's CAM generator."""


@dataclasses.dataclass(slots=True)
class TrainingConfig:
  """Training of a network.

  Attributes:
    model: the network.
    optim: its optimiser.
    transform: the training images' augmentation.
    init: pretrained weights: a directory or file, `hub:OWNER/NAME` (e.g. hub:timm/resnest101e.in1k)
      for a download, or empty for random ones.
    epochs: of `floor(images / batch_size)` micro-steps.
    batch_size: images to a micro-step, over all devices.
    eval_every: epochs between measurements; 0 for none. Never used to choose weights.
    eval_size: side in pixels of the square that measured images are fitted to.
    eval_batches: batches measured at most; 0 for all.
  """

  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
  transform: transforms.TransformConfig = dataclasses.field(
    default_factory=transforms.TransformConfig
  )
  init: str = field('', product=False)
  epochs: int = 15
  batch_size: int = 32
  eval_every: int = field(1, product=False)
  eval_size: int = field(512, product=False)
  eval_batches: int = field(0, product=False)


@dataclasses.dataclass(slots=True)
class CamTrainingConfig(TrainingConfig):
  """Training of a classification network whose maps are wanted.

  Attributes:
    smoothing: label smoothing of all classification targets.
    draw: which images an epoch shows.
    class_weight: factors of the classes in the classification terms of the trained network; not in
      those of the networks that judge erased images.
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

  start: Start = Start.PRETRAINED


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
