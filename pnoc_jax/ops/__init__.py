"""Pure functions over arrays: no parameters, no files, no configuration."""

from pnoc_jax.ops import affinity as affinity
from pnoc_jax.ops import cam as cam
from pnoc_jax.ops import convolution as convolution
from pnoc_jax.ops import crf as crf
from pnoc_jax.ops import depthwise as depthwise
from pnoc_jax.ops import erase as erase
from pnoc_jax.ops import label_split as label_split
from pnoc_jax.ops import lpcam as lpcam
from pnoc_jax.ops import moments as moments
from pnoc_jax.ops import normalize as normalize
from pnoc_jax.ops import paths as paths
from pnoc_jax.ops import pool as pool
from pnoc_jax.ops import pseudo_labels as pseudo_labels
from pnoc_jax.ops import puzzle as puzzle
from pnoc_jax.ops import random_walk as random_walk
from pnoc_jax.ops import resize as resize
