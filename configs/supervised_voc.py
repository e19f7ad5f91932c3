"""DeepLabV3+ on PASCAL VOC 2012, from masks: the bound that the tables compare with.

    python launch/run.py --config=configs/supervised_voc.py --config.dataset.root=ROOT
    python launch/run.py --config=configs/supervised_voc.py:smoke --config.dataset.root=ROOT

It learns from VOC's masks and SBD's, and keeps the last weights. Data, weights, words (`:paper`,
`:journal`, `:head`, `backbone=`, `:smoke`) and resuming are those of configs/pnoc_voc.py.

Obtained: nothing yet, it was not run. Published: 80.6 mIoU on val, with the weights that scored
best there.
"""

from configs import _presets, _recipes
from pnoc_jax import config as config_lib
from pnoc_jax.stages import segmentation


def get_config(argument: str | None = None) -> config_lib.PipelineConfig:
  """The config; words are those of `_presets.WORDS`."""
  preset = _presets.preset('supervised_voc', _recipes.VOC, method='pnoc', scored=('predictions',))
  config = preset(argument)
  config.segmentation.labels = segmentation.Labels.TRUE
  return config
