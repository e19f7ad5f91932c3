"""LPCAM at inference: features to cluster, and maps from prototypes."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from pnoc_jax.ops import cam as cam_ops
from pnoc_jax.ops import lpcam, normalize
from pnoc_jax.predict import multi_scale
from pnoc_jax.types import Array, Variables


def classifier_kernel(variables: Variables) -> Array:
  """f32[D, K], the weights of the classifier behind the backbone."""
  kernel = variables['params']['classifier']['kernel']
  return kernel.reshape(kernel.shape[-2:])


def features(model: nn.Module, variables: Variables, image: Array, valid: Array) -> Array:
  """The backbone's last features: f32[B, h, w, D], 0 where `valid` bool[B, H, W] is not."""
  # Typed by hand: flax says that a tuple may hold variables.
  outputs: Any = model.apply(variables, image, valid, method=_backbone)
  found, valids = outputs
  name = list(found)[-1]
  return jnp.where(valids[name][..., None], found[name].astype(jnp.float32), 0.0)


def _backbone(module: Any, image: Array, valid: Array) -> Any:
  return module.backbone(image, valid, train=False)


def features_and_cams(
  model: nn.Module,
  variables: Variables,
  image: Array,
  size: Array,
  *,
  output_stride: int,
  flip: bool = True,
) -> tuple[Array, Array]:
  """What prototypes are made of.

  Args (the others are those of `cams.scale_cams`):
    model: a `nn.classifier.Classifier`.
    flip: whether the maps are summed over the image and its mirror image.

  Returns:
    The features f32[B, h, w, D] of the image, and rectified class activation maps
    f32[B, h, w, K], of which the first `ceil(size / output_stride)` cells count.
  """
  kernel = classifier_kernel(variables)

  def forward(image: Array, valid: Array) -> Array:
    found = features(model, variables, image, valid)
    return jnp.concatenate([found @ kernel, found], axis=-1)

  maps, raw = multi_scale.with_mirror(forward, image, size, output_stride=output_stride, flip=flip)
  classes = kernel.shape[1]
  return raw[..., classes:], maps[..., :classes]


def scale_lpcams(
  model: nn.Module,
  variables: Variables,
  image: Array,
  size: Array,
  *,
  output_stride: int,
  flip: bool = True,
) -> tuple[Array, Array]:
  """Maps of one scale, as `cams.scale_cams`: of the features summed over both images.

  Args (the others are those of `cams.scale_cams`):
    model: a `nn.classifier.Classifier`.
    variables: its variables, and `lpcam/vectors`, f32[D, K] of `ops.lpcam.class_vector`.
    flip: whether the mirror image's features are added.

  Returns:
    maps f32[B, h, w, K], zero outside of the content; and the classifier's logits f32[B, K].
  """
  network = {name: variables[name] for name in ('params', 'batch_stats')}
  summed, raw = multi_scale.with_mirror(
    lambda image, valid: features(model, network, image, valid),
    image,
    size,
    output_stride=output_stride,
    activation=lambda x: x,
    flip=flip,
  )
  cam = raw @ classifier_kernel(network)
  cells = -(-size // output_stride)
  logits = cam_ops.logits(cam, normalize.size_valid(cells, cam.shape[1:3]))
  return lpcam.maps(summed, variables['lpcam']['vectors']), logits
