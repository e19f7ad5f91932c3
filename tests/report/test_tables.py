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
  lines = tables.ablation_markdown(runs).splitlines()
  assert lines[0].startswith('| method | runs | mIoU |')
  assert lines[2] == '| vanilla | 1 | 60.0 | 40.0 | 10.0 | 20.0 | 0.30 |'
  assert lines[3] == '| P-NOC | 2 | 72.0 ± 2.8 | 40.0 | 10.0 | 20.0 | 0.30 |'
  assert '72.0 ± 2.8' in tables.ablation(runs)


def test_a_name_in_markdown_begins_no_cell_and_no_row():
  result = {'miou': 50.0, 'iou': {'a': 50.0}}
  (line,) = tables.ablation_markdown([('![<b>](x)', result)]).splitlines()[2:]
  assert line.startswith(r'| !\[&lt;b&gt;\](x) | 1 |')
  lines = tables.ablation_markdown([('a|b\n# c', result)]).splitlines()
  assert len(lines) == 3 and lines[2].startswith(r'| a\|b # c | 1 |')
