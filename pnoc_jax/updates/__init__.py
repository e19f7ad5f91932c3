"""Update functions: one pure step of training each."""

from pnoc_jax.updates import pnoc as pnoc
from pnoc_jax.updates import update as update
