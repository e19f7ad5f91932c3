"""Which devices a batch is split over, on one host and on several."""

import math
import types

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies

from pnoc_jax.engine import settings
from pnoc_jax.engine import train as trainer
from pnoc_jax.nn import layers
from pnoc_jax.parallel import arrays
from pnoc_jax.parallel import mesh as meshes


def test_hosts_keep_their_chips_together():
  # The order along the ring of a v5e slice of 4 x 4 chips on four hosts.
  ring = [0, 0, 1, 1, 1, 1, 0, 2, 3, 3, 3, 3, 2, 2, 2, 0]
  chips = [types.SimpleNamespace(process_index=p, id=i) for i, p in enumerate(ring)]
  found = meshes.by_process(chips)
  assert [[chip.process_index for chip in host] for host in found] == [[i] * 4 for i in range(4)]
  assert [chip.id for chip in found[0]] == [0, 1, 6, 15]


@pytest.mark.parametrize(
  ('batch', 'processes', 'devices', 'expected'),
  [
    (16, 1, 8, (1, 1, 8)),
    (4, 1, 8, (1, 1, 4)),
    (12, 1, 8, (1, 1, 6)),
    (1, 1, 8, (1, 1, 1)),
    (32, 8, 8, (1, 8, 4)),
    (16, 32, 8, (2, 16, 1)),
    (1, 4, 4, (4, 1, 1)),
    (10, 4, 4, (2, 2, 1)),
  ],
)
def test_a_batch_has_as_many_equal_parts_as_there_are_devices_for(
  batch, processes, devices, expected
):
  assert meshes.spread(batch, processes, devices) == expected


@hypothesis.given(*[strategies.integers(1, n) for n in (64, 16, 8)])
@hypothesis.settings(deadline=None)
def test_every_process_takes_part_and_no_image_is_left_over(batch, processes, devices):
  copies, sharing, working = meshes.spread(batch, processes, devices)
  assert copies * sharing == processes and 1 <= working <= devices
  assert batch % (sharing * working) == 0
  # What divides all of them is used.
  assert sharing * working >= math.gcd(batch, processes)


def test_a_batch_of_four_lies_on_four_of_eight_devices(mesh):
  part = meshes.for_batch(mesh, 4)
  assert part.devices.tolist() == jax.devices()[:4]
  placed = arrays.to_global({'x': np.arange(4)}, part)['x']
  assert placed.sharding.device_set == set(jax.devices()[:4])
  assert meshes.for_batch(mesh, 24) is mesh


def _config(batch, *, norm=layers.Norm.BATCH, **optim):
  return settings.TrainingConfig(
    model=settings.ModelConfig(norm=norm),
    optim=settings.OptimConfig(**optim),
    batch_size=batch,
  )


def test_what_would_leave_most_devices_idle_is_refused_with_what_fits(mesh):
  for batch in (1, 2, 4, 8, 12, 14, 16, 20, 32):
    assert trainer.batch_fault('x', _config(batch), mesh) is None
  said = trainer.batch_fault('x', _config(22), mesh)
  assert said.startswith('x.batch_size is 22') and '11 images on 2 of them. Take 21 or 24' in said
  assert 'or 2 with x.optim.accumulate=11 and x.optim.grad_mean=true' in said
  assert 'BatchNorm' in said
  said = trainer.batch_fault(
    'x', _config(11, norm=layers.Norm.FROZEN, accumulate=2, grad_mean=True), mesh
  )
  assert '; or 2 with x.optim.accumulate=11, which' in said and 'BatchNorm' not in said
  # A sum of gradients cannot be had of another number of them.
  assert 'accumulate' not in trainer.batch_fault('x', _config(22, accumulate=2), mesh)


def test_the_plan_says_which_devices_train(mesh):
  assert trainer.on_devices(_config(16), mesh) == ''
  assert trainer.on_devices(_config(4), mesh) == 'on 4 of 8 devices, an image each'
  assert trainer.on_devices(_config(12), mesh) == 'on 6 of 8 devices, 2 images each'
