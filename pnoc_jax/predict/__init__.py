"""Inference as pure functions over variables."""

from pnoc_jax.predict import c2am as c2am
from pnoc_jax.predict import cams as cams
from pnoc_jax.predict import edges as edges
from pnoc_jax.predict import lpcam as lpcam
from pnoc_jax.predict import multi_scale as multi_scale
from pnoc_jax.predict import poolnet as poolnet
from pnoc_jax.predict import segmentation as segmentation
