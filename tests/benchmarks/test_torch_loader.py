"""benchmarks/torch_loader.py loads what a training loads."""

from benchmarks import torch_loader as loader
from configs import pnoc_coco, pnoc_voc


def test_made_up_images_are_loaded(tmp_path):
  paths = loader.make_images(tmp_path, 4)
  assert 10_000 < paths[0].stat().st_size < 200_000
  for name, preset in (('voc', pnoc_voc), ('coco', pnoc_coco)):
    assert loader.RECIPES[name] == preset.get_config('journal').generator.transform
  with loader.ours(paths, loader.RECIPES['voc'], 2) as stream:
    batch = next(stream)
  assert batch['image'].shape == (2, 512, 512, 3) and batch['box'].shape == (2, 4)


def test_work_in_the_background_counts():
  seconds = loader._timed(lambda: sum(range(10**6)))
  assert 0 < seconds < 5
