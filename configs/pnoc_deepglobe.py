"""P-NOC on DeepGlobe land cover, from image labels to DeepLabV3+.

    python launch/run.py --config=configs/pnoc_deepglobe.py --config.dataset.root=ROOT \\
      --config.dataset.lists=DIR
    python launch/run.py --config=configs/pnoc_deepglobe.py:smoke --config.dataset.root=ROOT

DIR holds train75.txt and test.txt, the code's random draw (data/readers/deepglobe.py). Images are
squeezed to 320 px everywhere. The code has recipes of the priors and of DeepLabV3+ and none
between: pseudo masks are made of the priors. Only the latest code has this data set, so `:paper`,
`:journal` and `:head` are one recipe; without a word Alg. 1 is kept (no gradients leak) in float32.
Weights, `backbone=`, `:smoke` and resuming are those of configs/pnoc_voc.py.

Obtained: nothing yet, it was not run.
"""

from configs import _presets, _recipes

get_config = _presets.preset(
  'pnoc_deepglobe', _recipes.DEEPGLOBE, method='pnoc', scored=_presets.WITHOUT_WALK
)
