"""Records what timm's EfficientNet-Lite0 computes with seeded weights (tests/nn/test_parity.py).

`pip install torch torchvision timm safetensors && python tools/record_efficientnet_lite_fixture.py`

Recorded with torch 2.14.1 (CPU) and timm 1.0.31.
"""

import numpy as np
import timm
import torch
from record_fixtures import _write, nhwc, seed_weights, seeded_tensors

ARCH = 'tf_efficientnet_lite0'
# Odd and even at every stride, in both directions.
SIZES = ((41, 38), (64, 33), (46, 47))
ENDS = {1: 'layer1', 2: 'layer2', 4: 'layer3'}  # The last block of ours, by timm's numbers.


def outputs(model: torch.nn.Module, image: np.ndarray) -> dict[str, torch.Tensor]:
  """Returns layer1 to layer4 of images f32[B, H, W, 3]."""
  x, found = model.bn1(model.conv_stem(torch.from_numpy(image).permute(0, 3, 1, 2))), {}
  for i, block in enumerate(model.blocks):
    x = block(x)
    if i in ENDS:
      found[ENDS[i]] = x
  return found | {'layer4': model.bn2(model.conv_head(x))}


def main() -> None:
  """Records the fixtures."""
  for output_stride in (16, 32):
    model = timm.create_model(ARCH, pretrained=False, output_stride=output_stride, num_classes=0)
    shapes = seed_weights(model)
    model.eval()
    arrays = {}
    for height, width in SIZES if output_stride == 16 else SIZES[:1]:
      image = seeded_tensors.image((1, height, width, 3))
      with torch.no_grad():
        found = outputs(model, image)
      arrays |= {f'{height}x{width}/{k}': nhwc(v) for k, v in found.items()}
    settings = {'arch': ARCH, 'output_stride': output_stride}
    _write(f'{ARCH}_os{output_stride}', arrays, shapes, settings)


if __name__ == '__main__':
  main()
