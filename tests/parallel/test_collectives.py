"""What travels between eight devices in a step of every training, read off the compiled program."""

import math
import re
from typing import NamedTuple

import pytest

from pnoc_jax import config as config_lib
from pnoc_jax import trees
from pnoc_jax.engine import settings
from pnoc_jax.losses import pnoc as losses
from pnoc_jax.stages.common import stage
from tests.configs import tiny
from tests.stages import contexts

STAGES = {entry.name: entry for entry in stage.stages(config_lib.PipelineConfig)}
BATCH = 8


class Travels(NamedTuple):
  """What is expected of a program.

  Attributes:
    passes: how often the gradient of each kernel is added up over the devices.
    trained: begin of the names of the parameters that train.
    others: numbers, besides, in sums of arrays of two and more axes.
    maxima: how often the largest number of the whole batch is looked for.
    gathers: how many arrays are gathered; only vectors [B, C] may be.
    once: whether all gradients and the loss travel together, as they can without statistics of the
      batch.
    handed_on: how many arrays each device hands to the next one; only masks of one image may be.
  """

  passes: int = 1
  trained: str = ''
  others: int = 0
  maxima: int = 0
  gathers: int = 0
  once: bool = False
  handed_on: int = 0


PROGRAMS = {
  ('classifier', 'generator'): Travels(),
  # The images pass through the network, then their tiles; the soft mask needs the batch's maximum.
  ('generator', 'generator'): Travels(passes=2, maxima=1),
  ('generator', 'noc'): Travels(once=True),
  # Each image without what the map of its neighbour in the batch covers.
  ('generator', 'noc', 'contrast'): Travels(once=True, handed_on=1),
  # Every pooled vector meets every other one: gathered, and their gradients [B, C] are added up.
  ('c2am', 'update'): Travels(gathers=3, others=3 * BATCH * 32),
  ('saliency', 'update'): Travels(once=True),
  # Sums and numbers of the three kinds of pairs.
  ('affinity', 'update'): Travels(trained='edges', others=3 * 2),
  ('segmentation', 'update'): Travels(),
}


def _collectives(text: str) -> dict[str, list[tuple[list[tuple[int, ...]], str]]]:
  """Of each kind, the shapes of a collective's results, and the name of what it reduces with."""
  pattern = r' = (.+?) ([a-z-]+?)(?:-start)?\(.*?channel_id=\d+(?:.*to_apply=%([\w.-]+))?'
  found = {}
  for shapes, kind, reducer in re.findall(pattern, text):
    dimensions = [
      tuple(int(n) for n in shape.split(',') if n)
      for shape in re.findall(r'\w\[([\d,]*)\]', shapes)
    ]
    found.setdefault(kind, []).append((dimensions, reducer))
  return found


@pytest.mark.parametrize('which', PROGRAMS, ids='-'.join)
def test_gradients_are_added_up_and_nothing_else_travels(which, mesh):
  expected, (name, program, *views) = PROGRAMS[which], which
  changed = {'generator.noc_views': losses.Views(views[0])} if views else {}
  config = settings.override(tiny.get_config(), changed)
  calls = STAGES[name].programs(contexts.nowhere(STAGES[name], config, mesh))
  (call,) = (call for call in calls if call.name == program)
  text = call.compiled.lower(*call.arguments).compile().as_text()
  found = _collectives(text)
  assert found.keys() <= {'all-reduce', 'all-gather', 'collective-permute'}
  handed_on = [shape for shapes, _ in found.get('collective-permute', ()) for shape in shapes]
  assert len(handed_on) == expected.handed_on
  assert all(shape[0] == shape[-1] == 1 for shape in handed_on)
  gathered = [shape for shapes, _ in found.get('all-gather', ()) for shape in shapes]
  assert len(gathered) == expected.gathers
  assert all(len(shape) == 2 and shape[0] == BATCH for shape in gathered)
  # Statistics of the normalisation and losses have one axis, or two of length 1 before it.
  summed = [
    math.prod(shape)
    for shapes, _ in found['all-reduce']
    for shape in shapes
    if len(shape) > 1 and shape[:2] != (1, 1)
  ]
  params = trees.flatten_names(call.arguments[0].params)
  kernels = sum(
    x.size for name, x in params.items() if name.startswith(expected.trained) and x.ndim == 4
  )
  assert sum(summed) == expected.passes * kernels + expected.others
  bodies = dict(re.findall(r'^%([\w.-]+) .*?\{\n(.*?)^\}', text, re.MULTILINE | re.DOTALL))
  maxima = [name for _, name in found['all-reduce'] if ' maximum(' in bodies[name]]
  assert len(maxima) == expected.maxima
  assert not expected.once or len(found['all-reduce']) == 1
