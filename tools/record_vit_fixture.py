"""Records what timm's ViTs compute with seeded weights (tests/nn/test_vit.py).

`pip install torch torchvision timm safetensors && python tools/record_vit_fixture.py`

Recorded with torch 2.14.1 (CPU) and timm 1.0.31.
"""

import numpy as np
import torch
from record_fixtures import _write, nhwc, seed_weights, seeded_tensors
from timm.models import vision_transformer

# Narrow networks of the released ones' form. The sizes: the grid that is stored, smaller, larger,
# and ones that patches do not divide.
WIDTH, HEADS = 24, 3
FORMS = {
  'vit_small_patch16_224': (16, 224, None, ((224, 224), (65, 97), (300, 241))),
  'vit_small_patch14_dinov2': (14, 518, 1e-5, ((56, 99),)),
}


def main() -> None:
  """Records the fixtures."""
  for arch, (patch, side, scale, sizes) in FORMS.items():
    model = vision_transformer.VisionTransformer(
      img_size=side,
      patch_size=patch,
      embed_dim=WIDTH,
      depth=12,
      num_heads=HEADS,
      init_values=scale,
      num_classes=0,
      dynamic_img_size=True,
      dynamic_img_pad=True,
    )
    shapes = seed_weights(model)
    model.eval()
    arrays = {}
    for height, width in sizes:
      image = torch.from_numpy(seeded_tensors.image((1, height, width, 3))).permute(0, 3, 1, 2)
      with torch.no_grad():
        middle = model.forward_intermediates(image, indices=[2, 5, 8], intermediates_only=True)
        last = model.forward_features(image)[:, 1:]
      last = last.transpose(1, 2).reshape(middle[0].shape)
      found = dict(zip(('layer1', 'layer2', 'layer3', 'layer4'), (*middle, last), strict=True))
      kept = {k: nhwc(v).astype(np.float32) for k, v in found.items()}
      # Every third cell, to keep the file small.
      arrays |= {f'{height}x{width}/{k}': v[:, ::3, ::3] for k, v in kept.items()}
    _write(arch, arrays, shapes, {'arch': arch, 'output_stride': patch, 'heads': HEADS})


if __name__ == '__main__':
  main()
