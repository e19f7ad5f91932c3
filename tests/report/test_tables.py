"""Tables as a reader sees them."""

from pnoc_jax.report import tables

RESULT = {
  'miou': 60.0,
  'miou_fg': 40.0,
  'fp': 10.0,
  'fn': 20.0,
  'threshold': 0.3,
  'iou': {'background': 100.0, 'cat': 40.0},
  'fp_class': {'background': 0.0, 'cat': 10.0},
  'fn_class': {'background': 0.0, 'cat': 20.0},
}


def test_per_class_table():
  assert tables.score(RESULT).splitlines() == [
    'class                 IoU    FP    FN',
    '------------------  -----  ----  ----',
    'background          100.0   0.0   0.0',
    'cat                  40.0  10.0  20.0',
    '------------------  -----  ----  ----',
    'mean                 60.0',
    'mean of foreground   40.0  10.0  20.0',
    'best threshold 0.30',
  ]


def test_ablation_gives_mean_and_standard_deviation_of_each_group():
  runs = [('vanilla', RESULT), ('P-NOC', {**RESULT, 'miou': 70.0}), ('P-NOC', {'miou': 74.0})]
  assert tables.ablation_rows(runs) == [
    ('vanilla', '1', '60.0', '40.0', '10.0', '20.0', '0.30'),
    ('P-NOC', '2', '72.0 ± 2.8', '40.0', '10.0', '20.0', '0.30'),
  ]
