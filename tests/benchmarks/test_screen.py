"""benchmarks/screen.py: its masks are the package's where they say so, and its recipes differ."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import screen
from pnoc_jax.ops import erase


@pytest.mark.parametrize(('image', 'over'), [(0.0, erase.Over.BATCH), (1.0, erase.Over.IMAGE)])
def test_masks_are_those_of_the_package(image, over):
  cam = jax.random.normal(jax.random.key(0), (3, 5, 6, 4))
  picked = jnp.eye(4)[:3]
  mask = screen.soft_mask(cam, picked, (20, 24), screen.Numbers(image=image))
  expected = erase.class_mask(cam, picked, size=(20, 24), over=over)
  np.testing.assert_allclose(mask, expected, atol=1e-6)
  sharp = screen.soft_mask(cam, picked, (20, 24), screen.Numbers(image=image, sharp=15.0))
  assert np.all((np.asarray(sharp) > 0.5) == (np.asarray(mask) > 0.3))


def test_recipes_differ_in_numbers_that_their_part_reads():
  assert screen.RECIPES.keys() == screen.PARTS.keys()
  names = [name for recipes in screen.RECIPES.values() for name in recipes]
  assert len(set(names)) == len(names)
  plain = screen.Numbers()
  reads = {
    'tiles': {'re'},
    'judge': {'cse', 'image', 'sharp', 'blur', 'clean'},
    'keep': {'keep'},
    'noc': {'noc', 'told', 'delta'},
    'contrast': set(),
  }
  for part, recipes in screen.RECIPES.items():
    read = {'area'}.union(*(reads[x] for x, has in screen.PARTS[part]._asdict().items() if has))
    assert len(set(recipes.values())) == len(recipes)
    for numbers in recipes.values():
      changed = {k for k, v in numbers._asdict().items() if v != getattr(plain, k)}
      assert changed <= read, part
