"""Losses: arrays in, a scalar out, always in float32."""

from pnoc_jax.losses import affinity as affinity
from pnoc_jax.losses import area as area
from pnoc_jax.losses import c2am as c2am
from pnoc_jax.losses import forward as forward
from pnoc_jax.losses import multilabel as multilabel
from pnoc_jax.losses import pnoc as pnoc
from pnoc_jax.losses import poolnet as poolnet
from pnoc_jax.losses import puzzle as puzzle
from pnoc_jax.losses import segmentation as segmentation
