"""P-NOC on PASCAL VOC 2012, from image labels to DeepLabV3+: the paper's run.

    python launch/run.py --config=configs/pnoc_voc.py --config.dataset.root=ROOT \\
      --config.saliency.init=resnet50_caffe.pth
    python launch/run.py --config=configs/pnoc_voc.py:smoke --config.dataset.root=ROOT

ROOT holds VOCdevkit/VOC2012, with the SBD masks in SegmentationClassAug or its lists, of which the
split train_aug comes (data/readers/voc.py). The ImageNet weights of ResNeSt-269 are downloaded
(`pip install 'pnoc-jax[hub]'`); PoolNet's ResNet-50 is a file of its authors, which `saliency.init`
names; without it that network starts from random weights.

Words, separated by commas: `:paper`, `:journal` and `:head` are the recipes of three states of the
released code (docs/recipes.md sets them beside the text, which is the default),
`backbone=resnest101` is another backbone, `:smoke` small networks and images. The same command
again resumes. The VOC server takes what `--config.predictions.splits=val,test` and
`--config.predictions.voc_server=True` write.

Obtained: nothing yet, it was not run. Published with `:journal`: priors 63.7 mIoU on train, pseudo
masks 75.5, DeepLabV3+ 73.8 on val.
"""

from configs import _presets, _recipes

get_config = _presets.preset(
  'pnoc_voc', _recipes.VOC, method='pnoc', scored=_presets.TO_PREDICTIONS
)
