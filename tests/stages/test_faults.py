"""Values that would stop a run halfway are named before it begins."""

import pytest

from pnoc_jax import config as config_lib
from pnoc_jax.engine import settings
from pnoc_jax.errors import UserError


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('generator.model.backbone', 'resnet50_caffe', 'name resnet50 here'),
    ('generator.model.backbone', 'tf_efficientnet_lite0', "'resnest269': they want .* one family"),
    ('classifier.optim.nesterov', True, 'classifier.optim.momentum is 0'),
    ('priors.max_buckets', 0, 'it is at least 1'),
    ('predictions.multiple', 0, 'it is at least 1'),
    ('predictions.scales', (1.0, -1.0), 'name one or more positive scales'),
    ('saliency_priors.resize_to', -1, 'a side in pixels, or 0 for none'),
    ('saliency.inference.batch_size', 0, 'it is at least 1'),
    ('random_walk.max_buckets', 0, 'it is at least 1'),
    ('runtime.keep', 0, 'it is at least 1'),
    ('runtime.workers', -1, 'it is at least 0'),
    ('evaluation.splits', ('val', 'tset'), 'tset; products are made of train, val'),
    ('evaluation.crf_splits', ('test',), 'test; products are made of train, val'),
  ],
)
def test_a_value_that_cannot_run_is_named(field, value, message):
  config = settings.override(config_lib.PipelineConfig(), {field: value})
  with pytest.raises(UserError, match=rf'(?s){field} .*{message}'):
    config_lib.validate(config)
