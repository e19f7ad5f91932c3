"""A network of two convolutions, and P-NOC's losses on it, written down once more from the paper.

The oracle shares no code with the package: convolutions, BatchNorm, tiles, masks and losses are
spelled out here.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

CLASSES, SIZE, BATCH = 3, 16, 4
ALPHA, DELTA, EPS = 0.1, 0.2, 1e-5
LR, DECAY = 0.05, 0.01


class Net(nn.Module):
  """conv - BatchNorm - relu - 1 x 1 conv, at stride 2: the interface of `nn.classifier`."""

  frozen: bool = False

  @nn.compact
  def __call__(self, image, valid=None, *, train=False):
    del valid
    x = nn.Conv(8, (3, 3), strides=2, padding=1, name='conv')(image)
    x = nn.BatchNorm(
      use_running_average=self.frozen or not train, momentum=0.9, epsilon=EPS, name='bn'
    )(x)
    return nn.Conv(CLASSES, (1, 1), use_bias=False, name='classifier')(nn.relu(x))


def variables(seed):
  """Returns variables whose running statistics are not the initial ones."""
  drawn = Net().init(jax.random.key(seed), jnp.zeros((1, SIZE, SIZE, 3)))
  noise = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: x + noise.uniform(0.05, 0.5, x.shape).astype(np.float32) * (x.ndim == 1),
    {'params': drawn['params'], 'batch_stats': drawn['batch_stats']},
  )


def batch(seed=0):
  """Returns images, labels of one to three classes, and indices."""
  rng = np.random.default_rng(seed)
  label = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [1, 1, 1]], np.float32)
  return {
    'image': rng.normal(size=(BATCH, SIZE, SIZE, 3)).astype(np.float32),
    'label': label,
    'index': np.arange(BATCH, dtype=np.int32) + 10 * seed,
  }


def forward(params, stats, x, *, train):
  """Returns maps and running statistics: `Net` without linen."""
  x = jax.lax.conv_general_dilated(
    x,
    params['conv']['kernel'],
    window_strides=(2, 2),
    padding=((1, 1), (1, 1)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  x = x + params['conv']['bias']
  mean, var = stats['bn']['mean'], stats['bn']['var']
  if train:
    batch_mean = x.mean((0, 1, 2))
    batch_var = ((x - batch_mean) ** 2).mean((0, 1, 2))
    stats = {'bn': {'mean': 0.9 * mean + 0.1 * batch_mean, 'var': 0.9 * var + 0.1 * batch_var}}
    mean, var = batch_mean, batch_var
  x = (x - mean) / jnp.sqrt(var + EPS) * params['bn']['scale'] + params['bn']['bias']
  return jnp.einsum('bhwc,ck->bhwk', jnp.maximum(x, 0), params['classifier']['kernel'][0, 0]), stats


def smooth(y):
  """0.1: 1 becomes .95, 0 becomes .05."""
  return (1 - ALPHA) * y + ALPHA / 2


def cross_entropy(z, y):
  """The mean over examples and classes, from probabilities."""
  p = 1 / (1 + jnp.exp(-z))
  return jnp.mean(-y * jnp.log(p) - (1 - y) * jnp.log(1 - p))


def quarters(x):
  """The four quarters of each image, one image after the other."""
  half = x.shape[1] // 2
  parts = []
  for i in range(x.shape[0]):
    parts += [x[i, :half, :half], x[i, :half, half:], x[i, half:, :half], x[i, half:, half:]]
  return jnp.stack(parts)


def whole(x):
  """The inverse of `quarters`."""
  images = []
  for i in range(0, x.shape[0], 4):
    top = jnp.concatenate([x[i], x[i + 1]], axis=1)
    bottom = jnp.concatenate([x[i + 2], x[i + 3]], axis=1)
    images.append(jnp.concatenate([top, bottom], axis=0))
  return jnp.stack(images)


def masks(cam, picked, *, over_batch):
  """psi: the picked class's map, rectified, enlarged, over its maximum."""
  chosen = jnp.stack([cam[i, :, :, k] for i, k in enumerate(np.argmax(picked, 1))])
  positive = jnp.maximum(chosen, 0)
  large = jax.image.resize(positive, (len(picked), SIZE, SIZE), 'linear', antialias=False)
  largest = large.max() if over_batch else large.max((1, 2), keepdims=True)
  return (large / (largest + EPS))[..., None]


def generator_loss(
  params,
  noc_params,
  stats,
  noc_stats,
  data,
  picked,
  lambda_re,
  lambda_cse,
  *,
  over_batch=True,
  detach=False,
  squared=False,
  lambda_conf=0.0,
):
  """L_f of Eqs. 1 and 2, with the terms.

  `squared` is the reference's L2 over the present classes of each image, `lambda_conf` weighs
  -s log(s) of each tile's scores s.
  """
  image, label = data['image'], data['label']
  cam, stats = forward(params, stats, image, train=True)
  small, stats = forward(params, stats, quarters(image), train=True)
  cam_re = whole(small)
  terms = {
    'loss/cls': cross_entropy(cam.mean((1, 2)), smooth(label)),
    'loss/cls_re': cross_entropy(cam_re.mean((1, 2)), smooth(label)),
    'loss/re': (jnp.abs(cam - cam_re) * label[:, None, None, :]).mean(),
  }
  if squared:
    present = ((cam - cam_re) ** 2).mean((1, 2)) * label
    terms['loss/re'] = (present.sum(1) / label.sum(1)).mean()
  psi = masks(cam, picked, over_batch=over_batch)
  psi = jax.lax.stop_gradient(psi) if detach else psi
  judged, _ = forward(noc_params, noc_stats, image * (1 - psi), train=False)
  terms['loss/cse'] = cross_entropy(judged.mean((1, 2)), smooth(label - picked))
  total = terms['loss/cls'] + terms['loss/cls_re']
  total = total + lambda_re * terms['loss/re'] + lambda_cse * terms['loss/cse']
  if lambda_conf:
    score = 1 / (1 + jnp.exp(-small.mean((1, 2))))
    terms['loss/conf'] = -(score * jnp.log(score + 1e-5)).sum(1).mean()
    total = total + lambda_conf * terms['loss/conf']
  return total, (cam, stats, terms | {'loss/total': total})


def noc_loss(noc_params, noc_stats, data, cam, picked, lambda_noc):
  """L_noc of Eq. 3: everything is still there, whatever was erased."""
  psi = masks(cam, picked, over_batch=False)
  erased = data['image'] * (psi <= DELTA)
  seen, _ = forward(noc_params, noc_stats, erased, train=False)
  return lambda_noc * cross_entropy(seen.mean((1, 2)), smooth(data['label']))


def descend(params, grads):
  """The reference's SGD: biases learn twice as fast and do not decay, the head ten times."""
  rates = {
    'conv': {'kernel': (1, DECAY), 'bias': (2, 0)},
    'bn': {'scale': (1, DECAY), 'bias': (2, 0)},
    'classifier': {'kernel': (10, DECAY)},
  }
  return {
    module: {
      name: p - LR * rates[module][name][0] * (grads[module][name] + rates[module][name][1] * p)
      for name, p in leaves.items()
    }
    for module, leaves in params.items()
  }
