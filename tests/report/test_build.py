"""The pages, from whole runs, from parts of runs and from damaged ones."""

import base64
import re
import shutil

import numpy as np
import pytest

from pnoc_jax import errors
from pnoc_jax.data import info
from pnoc_jax.io import images, records, terminal
from pnoc_jax.report import (
  build,
  confusion,
  examples,
  files,
  pictures,
  published,
  refinement,
  tables,
)
from tests.report import toy_run
from tests.report.toy_run import STAGES


def _page(workdir, stages=STAGES, *, open_source=toy_run.open_source, images=12):
  return build.build(workdir, stages, open_source=open_source, images=images).read_text()


def test_a_whole_run_gives_one_self_contained_page(tmp_path):
  result = toy_run.write_run(tmp_path)
  text = _page(tmp_path)
  found = toy_run.Checker(text)
  assert len(found.ids) == len(set(found.ids))
  assert all(address.startswith(('#', 'data:')) for address in found.addresses)
  # Of each of the 8 images: itself, mask, priors, error; and itself, mask, label map, one class.
  assert len(found.images) == 1 + 32 + 32 and all(found.images)
  assert f'{result["miou"]:.1f}' in text and '91.2' in text
  assert 'P-NOC' in text and 'Fig. 7a' in text and 'Fig. 7b' in text
  assert 'dog &amp; &lt;co&gt;' in text and '<co>' not in text
  assert 'class="note"' not in text
  # The same files give the same page.
  assert _page(tmp_path) == text


HOSTILE = ('"><script>x</script>', '$\\frac{', '_hidden', "'onload=x", '\x1b[2J', '</svg>', '&lt;')


def test_names_are_shown_and_never_obeyed(tmp_path):
  toy_run.write_run(tmp_path)
  # Somebody else's results: a name is a class, a split, and the name of the run.
  for path in sorted((tmp_path / 'evaluation').glob('*.json')):
    result = records.read_json(path)
    if 'confusion' in result:
      size = len(HOSTILE)
      matrix = np.eye(size, size + 1) * 9
      matrix[0, 1] = 1
      names = dict.fromkeys(HOSTILE, 50.0)
      result |= {'iou': names, 'fp_class': names, 'fn_class': names, 'confusion': matrix.tolist()}
      result |= {'absent': list(HOSTILE)}
      records.write_json(path, result)
    score, _, split = path.stem.rpartition('_')
    for name in (x for x in HOSTILE if '/' not in x and '\x1b' not in x):
      records.write_json(path.with_name(f'{score}_{split}{name}.json'), result)
      (tmp_path / 'priors' / f'{split}{name}').mkdir(exist_ok=True)
  config = records.read_json(tmp_path / 'config.json')
  records.write_json(tmp_path / 'config.json', config | {'name': ' '.join(HOSTILE)})
  records.write_json(tmp_path / files.REMARKS, {HOSTILE[0]: [HOSTILE[0], HOSTILE[4]]})
  text = _page(tmp_path, images=1)
  found = toy_run.Checker(text)
  assert len(found.ids) == len(set(found.ids))
  assert '<script' not in text and '\x1b' not in text and 'onload=x"' not in text
  assert '_hidden' in text and '$\\frac{' in text and r'\x1b[2J' in text
  assert all(address.startswith(('#', 'data:')) for address in found.addresses)
  assert '\x1b' not in terminal.visible(build.terminal_tables(tmp_path, STAGES))


def test_missing_and_damaged_files_become_notes(tmp_path):
  text = build.build(tmp_path, STAGES).read_text()
  toy_run.Checker(text)
  assert 'config.json does not exist' in text and 'Nothing has been evaluated' in text
  toy_run.write_run(tmp_path)
  (tmp_path / 'config.json').write_text('{}')
  (tmp_path / 'evaluation' / 'priors_val.json').write_text('{"miou": 3')
  (tmp_path / 'evaluation' / 'priors_test.json').write_text('{"miou": 3}')
  (tmp_path / 'evaluation' / 'priors_more.json').write_text('{"miou": 3, "iou": {"cat": 3}}')
  with (tmp_path / 'generator' / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 70, "loss/total": NaN}\n{"step": 8')
  text = build.build(tmp_path, STAGES).read_text()
  toy_run.Checker(text)
  assert 'priors_val.json is not JSON' in text
  assert 'priors_test.json is not the result' in text
  assert 'Priors of more</h3>' in text  # Though its curve over the thresholds is not there.
  assert 'the data set does not open' in text
  for path in (tmp_path / 'priors' / 'train').iterdir():
    path.write_bytes(path.read_bytes()[:100])
  text = _page(tmp_path)
  assert 'no prior of train is there and whole' in text
  assert 'No pictures, since no product is there and whole' in text
  with pytest.raises(errors.UserError, match='no such directory'):
    build.build(tmp_path / 'none', STAGES)


def test_runs_are_set_side_by_side(tmp_path):
  for name, quality in (('a', 0.2), ('b', 0.9), ('c', 1.0)):
    toy_run.write_run(tmp_path / name, quality)
  toy_run.write_refinement(tmp_path / 'c')
  runs = [('vanilla', tmp_path / 'a'), ('P-NOC', tmp_path / 'b'), ('P-NOC', tmp_path / 'c')]
  output = tmp_path / 'report' / 'index.html'
  assert (
    build.build_comparison(runs, output, STAGES, open_source=toy_run.open_source, images=6)
    == output
  )
  found = toy_run.Checker(output.read_text())
  assert len(found.ids) == len(set(found.ids))
  # Of each of 6 images: itself, mask, one of each method.
  assert len(found.images) == 24
  assert 'Pseudo masks of train</h2>' in output.read_text()
  assert '<td>81.8</td><td>77.2</td>' in output.read_text()


def test_a_group_is_shown_by_its_first_run_that_was_scored(tmp_path):
  for name in ('a', 'b', 'c'):
    toy_run.write_run(tmp_path / name)
  (tmp_path / 'b' / 'evaluation' / 'priors_train.json').unlink()
  runs = [('vanilla', tmp_path / 'a'), ('P-NOC', tmp_path / 'b'), ('P-NOC', tmp_path / 'c')]
  output = tmp_path / 'index.html'
  build.build_comparison(runs, output, STAGES, open_source=toy_run.open_source, images=3)
  text = output.read_text()
  assert len(toy_run.Checker(text).images) == 12 and 'Activation of P-NOC on img0' in text
  assert '<th scope="row">P-NOC</th><td>1</td>' in text and 'Nothing has been evaluated' in text


def test_a_long_log_is_read_in_linear_time():
  looks = []

  class Row(dict):
    def __contains__(self, key):
      looks.append(key)
      return super().__contains__(key)

  rows = tuple(Row(step=i, epoch=i / 10, loss=1.0) for i in range(50))
  x, _ = files.StageFiles(rows, True, {}).series('loss')
  assert x[-1] == 4.9 and len(looks) <= 2 * len(rows)


def test_the_data_set_opens_from_the_record_of_the_config():
  config = info.DatasetConfig()
  config.shapes.train = 3
  source = files.open_source({'dataset': records.plain(config)}, config.train_split)
  assert len(source) == 3
  with pytest.raises(errors.UserError, match='does not describe a data set'):
    files.open_source({}, 'train')


def test_examples_are_the_best_the_middle_and_the_worst():
  ranked = [(f'{i}', 100.0 - i) for i in range(21)]
  chosen = examples.choose(ranked, 9)
  assert [i for _, i, _ in chosen] == ['0', '1', '2', '9', '10', '11', '18', '19', '20']
  assert [why for why, _, _ in chosen] == ['best'] * 3 + ['median'] * 3 + ['worst'] * 3
  assert len(examples.choose(ranked[:2], 9)) == 2
  assert [i for _, i, _ in examples.choose([(str(i), float('nan')) for i in range(5)], 3)] == [
    '0',
    '2',
    '4',
  ]


def test_the_first_images_are_what_each_stage_fails_on_by_its_own_score(tmp_path):
  toy_run.write_run(tmp_path)
  toy_run.write_refinement(tmp_path)
  source = toy_run.Source()
  for stage, index in (('predictions', 5), ('pseudo_masks', 2), ('saliency', 6)):
    path = tmp_path / stage / 'train' / f'{source.ids[index]}.png'
    images.write_png(path, np.zeros((16, 16), np.uint8))
  text = _page(tmp_path)
  wall = text[text.index('class="wall"') : text.index('>Numbers</h2>')]
  rows = dict(re.findall('<h4>([^<]*) <span>([^<]*)</span>', wall))
  assert len(rows) == 8
  # 64 of 256 pixels are the object's: background 75 %, object 0.
  assert 'Predictions: the worst, IoU 37.5' in rows['img5']
  assert 'Pseudo masks: the worst, IoU 37.5' in rows['img2']
  assert 'Saliency: the worst, IoU 37.5' in rows['img6']
  assert sum(x.count('Predictions: the worst') for x in rows.values()) == 1
  (data,) = re.findall('prediction of img5 is wrong" src="data:image/png;base64,([^"]*)"', wall)
  picture = images.read_image(base64.b64decode(data))
  assert (picture[4:12, 4:12] == pictures.ERRORS['missed']).all()
  # The section on predictions is led by their score, too, not by that of the priors.
  section = text[text.index('>Predictions of train</h3>') :]
  assert re.findall('<h4>([^<]*) <span>worst', section)[-1:] == ['img5']


def test_undecided_pixels_do_not_count():
  source = toy_run.Source()
  target = source.mask(0)
  labels = np.where(target > 0, target, 255)
  labels[0, 0], labels[4, 4] = 0, 0
  view = examples.View('x', labels)
  # Background 1 of 2, the object 63 of 64.
  assert examples.iou(view, target) == pytest.approx(50 * (1 / 2 + 63 / 64))
  salient = examples.View('x', (target > 0).astype(np.uint8), salient=True)
  assert examples.iou(salient, source.mask(1)) == pytest.approx(100)
  assert np.isnan(examples.iou(view, None))


def test_splits_that_add_no_stage_are_left_out_of_the_first_images(tmp_path):
  toy_run.write_run(tmp_path)
  toy_run.write_refinement(tmp_path)
  for stage in ('priors', 'predictions'):
    shutil.copytree(tmp_path / stage / 'train', tmp_path / stage / 'val')
  (tmp_path / 'predictions' / 'train').rename(tmp_path / 'predictions' / 'test')
  config = records.read_json(tmp_path / 'config.json')
  splits = {'splits': ['train', 'val', 'test']}
  records.write_json(tmp_path / 'config.json', config | {'priors': splits, 'predictions': splits})
  text = _page(tmp_path)
  wall = text[text.index('class="wall"') : text.index('>Numbers</h2>')]
  assert re.findall('<h3>([^<]*)</h3>', wall) == ['train: 4 of 8 images', 'val: 4 of 8 images']


def test_the_page_ends_with_how_it_was_made(tmp_path):
  toy_run.write_run(tmp_path)
  assert 'command' not in _page(tmp_path)
  said = {'command': 'python run.py --x=<b>', 'commit': 'abc', 'machine': 3}
  records.write_json(tmp_path / files.MADE, said)
  text = _page(tmp_path)
  footer = text[text.index('<footer>') :]
  assert '<dt>what follows is of</dt><dd>the last call' in footer
  assert '<dt>command</dt><dd>python run.py --x=&lt;b&gt;</dd>' in footer
  assert '<dt>commit</dt><dd>abc</dd>' in footer and 'machine' not in footer
  assert '<dt>seed</dt><dd>0</dd>' in footer


def test_every_product_has_its_section(tmp_path):
  toy_run.write_run(tmp_path)
  toy_run.write_refinement(tmp_path)
  text = _page(tmp_path, images=6)
  found = toy_run.Checker(text)
  assert len(found.ids) == len(set(found.ids))
  for name in ('Saliency', 'Affinity labels', 'Random walk', 'Pseudo masks', 'Predictions'):
    assert f'{name} of train</h3>' in text
  # Of 6 images: image, mask, seven products, error. Of 6: image, mask, prior, its class. Of 3:
  # image and mask; four of saliency; two of labels; four of the walk; mask and overlay; those and
  # the prediction.
  assert len(found.images) == 1 + 6 * 10 + 6 * 4 + 3 * (2 * 5 + 4 + 2 + 4 + 2 + 3)
  assert '92.5 (of 2)' in text and '81.8' in text and '33.2' in text and '45.5' in text
  assert text.count('Confusion matrix of') == 2 and 'mIoU of the predictions, train' in text
  assert 'published' not in text and 'class="note"' not in text
  assert _page(tmp_path, images=6) == text
  printed = build.terminal_tables(tmp_path, STAGES).splitlines()
  assert printed[0].split() == ['mIoU', 'train'] and 'predictions of train' in printed


def test_a_stage_that_is_added_to_the_list_has_its_sections_at_its_place(tmp_path):
  def figures(look, split):
    chosen = [image_id for _, image_id, _ in look.chosen(split)]
    return f'<p>{len(chosen)} of {len(look.source(split).ids)} outlines of {look.run.name}</p>'

  toy = toy_run.Stage(
    'outlines', 'Outlines', 'the outliner', (toy_run.Score('outlines', 'Outlines', True),), figures
  )
  stages = (*STAGES[:2], toy, *STAGES[2:])
  toy_run.write_run(tmp_path)
  toy_run.write_refinement(tmp_path)
  with records.JsonLines(tmp_path / 'outlines' / 'metrics.jsonl') as file:
    file.write({'step': 1, 'loss/total': 1.0, 'eval/miou': 4.0})
  result = {'miou': 12.25, 'iou': {'background': 12.25}}
  records.write_json(tmp_path / 'evaluation' / 'outlines_train.json', result)
  text = _page(tmp_path, stages, images=6)
  headings = re.findall('<summary><h3>([^<0-9]*)</h3>', text)
  assert headings[:3] == ['Priors of train', 'Outlines of train', 'Saliency of train']
  assert headings[-2:] == ['Training of the generator', 'Training of the outliner']
  assert '<p>3 of 8 outlines of toy run</p>' in text
  assert 'mIoU of the outlines, train</dt><dd>12.2' in text
  assert '<th scope="row">outlines</th><td>not finished</td><td>12.2</td>' in text
  assert '<th scope="col">Priors</th><th scope="col">Outlines</th>' in text
  lines = build.terminal_tables(tmp_path, stages).splitlines()
  assert [line.split()[0] for line in lines[2:5]] == ['Priors', 'Outlines', 'Masks']
  runs, output = [('a', tmp_path), ('b', tmp_path)], tmp_path / 'both.html'
  text = build.build_comparison(runs, output, stages, open_source=toy_run.open_source).read_text()
  assert 'Outlines of train</h2>' in text and 'mIoU of the outliner' in text


def test_agreement_with_pseudo_masks_is_not_shown_as_a_score(tmp_path):
  toy_run.write_run(tmp_path)
  with records.JsonLines(tmp_path / 'segmentation' / 'metrics.jsonl') as file:
    for step in (1, 2):
      masks = {'eval/miou': 51.0 + step, 'eval/miou_fg': 41.0}
      file.write({'step': step, **masks, 'eval/pseudo/miou': 91.0, 'eval/pseudo/miou_fg': 81.0})
  section = _page(tmp_path).split('Training of the segmentation network</h3>')[1]
  assert 'mIoU: from 52 to 53' in section
  assert 'mIoU against the pseudo masks: from 91 to 91' in section
  assert '<th scope="col">mIoU against the pseudo masks</th>' in section
  output = tmp_path / 'index.html'
  runs = [('a', tmp_path)]
  text = build.build_comparison(runs, output, STAGES, open_source=toy_run.open_source).read_text()
  assert 'mIoU of the segmentation network during training. a: from 52 to 53' in text


def test_both_polarities_of_a_map_are_shown_where_both_are_measured(tmp_path):
  stages = (*STAGES, toy_run.Stage('c2am', training_title='C2AM'))
  with records.JsonLines(tmp_path / 'c2am' / 'metrics.jsonl') as file:
    file.write({'step': 1, 'eval/miou': 22.0, 'eval/miou_inverted': 77.0})
  text = _page(tmp_path, stages)
  assert 'mIoU: from 22 to 22' in text and 'mIoU, map inverted: from 77 to 77' in text


def test_products_without_masks_are_shown(tmp_path):
  toy_run.write_run(tmp_path)
  toy_run.write_refinement(tmp_path)
  for path in (tmp_path / 'evaluation').iterdir():
    path.unlink()
  config = records.read_json(tmp_path / 'config.json')
  records.write_json(tmp_path / 'config.json', {**config, 'priors': {'splits': ['train']}})
  for path in (tmp_path / 'saliency' / 'train').iterdir():
    path.write_bytes(path.read_bytes()[:20])
  text = _page(tmp_path)
  toy_run.Checker(text)
  assert 'Predictions of train</h3>' in text and 'Confusion matrix' not in text
  assert 'Activation of cat on img0' in text
  # A damaged picture is left out, and the others are there.
  assert 'C2AM mask of img0' in text and 'saliency of img0' not in text


def test_without_masks_the_page_says_how_sure_the_maps_are(tmp_path):
  class Source(toy_run.Source):
    has_masks = False

  toy_run.write_run(tmp_path)
  (tmp_path / 'evaluation' / 'priors_train.json').unlink()
  proxy = {**toy_run.PROXY, 'threshold': 0.45}
  records.write_json(tmp_path / 'evaluation' / 'priors_proxy_train.json', proxy)
  text = _page(tmp_path, open_source=lambda config, split: Source(), images=3)
  toy_run.Checker(text)
  assert tables.PROXY_NOTE in text and 'Nothing has been evaluated' not in text
  assert '<th scope="row">maps and CRF agree</th><td>71.2</td><td>high</td>' in text
  # What each line means is prose; and the page is no Markdown.
  table = text[text.rindex('<table', 0, text.index('maps and CRF agree</th>')) :]
  assert table.startswith('<table class="prose">') and '`' not in tables.PROXY_NOTE
  assert 'views agree' not in text  # Which is not known here.
  row = '<td>4</td><td>-</td><td>95.0</td><td>30.0</td>'
  assert f'<th scope="row">dog &amp; &lt;co&gt;</th>{row}' in text
  assert 'background at 0.45' in text and '>prior at 0.45</figcaption>' in text
  # The least sure come first.
  wall = text[text.index('class="wall"') : text.index('>Numbers</h2>')]
  rows = re.findall('<h4>([^<]*) <span>([^<;]*); ', wall)
  assert [name for name, _ in rows] == ['img3', 'img7', 'img2']
  assert rows[0][1] == 'maps and CRF agree by 60.0 %'
  # It is no score: no table of mIoU has it.
  assert 'mIoU' not in text[text.index('>Numbers</h2>') : text.index('How sure the maps are')]
  printed = build.terminal_tables(tmp_path, STAGES)
  assert printed.startswith('priors of train\nwithout masks') and tables.PROXY_NOTE in printed


def _write_two_splits(folder):
  """A run with priors of train and predictions of val."""
  toy_run.write_run(folder)
  toy_run.write_refinement(folder)
  (folder / 'predictions' / 'train').rename(folder / 'predictions' / 'val')
  config = records.read_json(folder / 'config.json')
  splits = {'splits': ['train', 'val']}
  records.write_json(folder / 'config.json', config | {'priors': splits, 'predictions': splits})


def test_each_split_of_the_first_images_is_told_by_which_rule_they_are_chosen(tmp_path):
  class Bare(toy_run.Source):
    has_masks = False

  _write_two_splits(tmp_path)
  sources = {'train': Bare(), 'val': toy_run.Source()}
  text = _page(tmp_path, open_source=lambda config, split: sources[split], images=2)
  assert 'Without masks: images at equal distances' in text and 'never by hand' in text
  assert '<h3>val, 8 of 8 images</h3>' in text


def test_a_stage_that_was_resumed_took_at_least_the_steps_of_its_log(tmp_path):
  toy_run.write_run(tmp_path)
  # 50 steps of half a second.
  assert '<td>25 s</td>' in _page(tmp_path, images=0)
  for seconds, shown in ((3.0, '25 s'), (70.0, '1 min 10 s')):
    records.write_done(tmp_path / 'generator', {}, {}, {'seconds': seconds})
    assert f'<td>{shown}</td>' in _page(tmp_path, images=0)


def test_the_maps_of_a_training_are_shown_by_epoch(tmp_path):
  class Source(toy_run.Source):
    def example(self, index):
      return {'image': np.full((16, 24, 3), 100, np.uint8)}

    def size(self, index):
      return 16, 24

  toy_run.write_run(tmp_path)
  folder = tmp_path / 'generator' / files.HISTORY
  for epoch in range(1, 21):
    for name in ('img1', 'img3', 'gone'):
      path = folder / f'{epoch:04d}' / 'train' / f'{name}.png'
      images.write_png(path, np.full((4, 4), 12 * epoch, np.uint8))
  assert 'Maps over' not in _page(tmp_path, open_source=lambda *_: Source(), images=0)
  text = _page(tmp_path, open_source=lambda *_: Source(), images=3)
  toy_run.Checker(text)
  section = text.split('Maps over the epochs</h3>')[1]
  assert 'after 8 of 20 epochs' in section
  assert re.findall('<h4>([^<]*) <', section) == ['img1', 'img3']
  epochs = [1, 4, 6, 9, 12, 15, 17, 20]
  assert re.findall('alt="Maps of img3, epoch ([^"]*)"', section) == [str(x) for x in epochs]
  (data,) = re.findall('alt="Maps of img3, epoch 20" src="data:image/png;base64,([^"]*)"', section)
  grey = np.full((16, 16), 240 / 255, np.float32)
  expected = pictures.overlay(np.full((16, 16, 3), 100, np.uint8), grey)
  # What is measured is the square at the top left.
  np.testing.assert_array_equal(images.read_image(base64.b64decode(data)), expected)
  assert 'any more' not in section
  (folder / '0002' / 'train' / 'img1.png').unlink()
  section = _page(tmp_path, open_source=lambda *_: Source(), images=3)
  assert 'not there any more: 1.' in section
  # Of squeezed images it is all; a picture that cannot be read is left out.
  config = records.read_json(tmp_path / 'config.json')
  config['generator']['transform'] = {'resize': 'square'}
  records.write_json(tmp_path / 'config.json', config)
  (folder / '0020' / 'train' / 'img3.png').write_bytes(b'no picture')
  for name in ('0021', '0020/val'):
    (folder / name).write_text('no directory')
  section = _page(tmp_path, open_source=lambda *_: Source(), images=3)
  assert 'Maps of img3, epoch 20"' not in section
  (data,) = re.findall('alt="Maps of img3, epoch 17" src="data:image/png;base64,([^"]*)"', section)
  assert images.read_image(base64.b64decode(data)).shape == (16, 24, 3)


def test_the_scores_of_a_judge_are_a_chart_and_columns(tmp_path):
  toy_run.write_run(tmp_path)
  assert 'What the judge finds' not in _page(tmp_path, images=0)
  with records.JsonLines(tmp_path / 'generator' / 'metrics.jsonl') as file:
    for step, scores in ((60, (90.0, 50.0, 30.0)), (70, (80.0, 20.0, 10.0))):
      names = (f'eval/judge_{x}' for x in ('whole', 'soft', 'hard'))
      file.write({'step': step, 'epoch': step / 10, **dict(zip(names, scores, strict=True))})
  text = _page(tmp_path, images=0)
  assert 'What the judge finds of a class' in text
  assert 'judge, softly erased: from 50 to 20; judge, hard erased: from 30 to 10.' in text
  assert 'judge, hard erased</th>' in text


def test_small_pictures_of_photographs_are_stored_as_photographs():
  picture = examples.Picture('x', 'x', np.zeros((400, 500, 3), np.uint8), True)
  (figure,) = examples.encoded([picture], 160)
  assert figure.uri.startswith('data:image/jpeg') and not figure.pixels
  (figure,) = examples.encoded([picture._replace(array=picture.array[:100, :100])], 160)
  assert figure.uri.startswith('data:image/png') and figure.pixels


def test_runs_without_masks_are_compared_by_how_sure_their_maps_are(tmp_path):
  class Source(toy_run.Source):
    has_masks = False

  for name, crf in (('a', 60.0), ('b', 70.0), ('c', 80.0)):
    toy_run.write_run(tmp_path / name)
    evaluation = tmp_path / name / 'evaluation'
    (evaluation / 'priors_train.json').unlink()
    records.write_json(evaluation / 'priors_proxy_train.json', {**toy_run.PROXY, 'crf': crf})
  runs = [('vanilla', tmp_path / 'a'), ('P-NOC', tmp_path / 'b'), ('P-NOC', tmp_path / 'c')]
  output = tmp_path / 'index.html'
  build.build_comparison(runs, output, STAGES, open_source=lambda *_: Source(), images=3)
  text = output.read_text()
  toy_run.Checker(text)
  assert 'Priors of train</h2>' in text and tables.PROXY_NOTE in text
  cells = '<td>60.0</td><td>75.0 ± 7.1</td><td>high</td>'
  assert f'<th scope="row">maps and CRF agree</th>{cells}' in text
  assert 'Activation of P-NOC on img0' in text


def test_no_more_images_are_shown_first_than_asked_for(tmp_path):
  _write_two_splits(tmp_path)
  text = _page(tmp_path, images=1)
  wall = text[text.index('class="wall"') : text.index('>Numbers</h2>')]
  assert wall.count('<h4>') == 1


def test_of_four_channels_three_are_shown(tmp_path):
  class Source(toy_run.Source):
    has_masks = False

    def example(self, index):
      return {'image': np.full((16, 16, 4), 30 * index, np.uint8)}

  toy_run.write_run(tmp_path)
  text = build.build(
    tmp_path, STAGES, open_source=lambda config, split: Source(), images=3
  ).read_text()
  # Of 3 images: itself and the priors; itself, label map, one class.
  assert len(toy_run.Checker(text).images) == 1 + 6 + 9
  assert 'Without masks' in text and 'IoU by image' not in text


def test_the_authors_figures_stand_beside_runs_on_their_data():
  config = {'dataset': {'name': 'voc12'}, 'generator': {'method': 'pnoc', 'smoothing': 0.1}}
  found = published.scores(config)
  assert (found['priors'], found['pseudo_masks']) == ('63.7 train', '75.5 train')
  assert found['predictions'] == '73.8 val'
  config['generator'] = {'method': 'poc', 'smoothing': 0.0}
  assert published.scores(config) == {'priors': '61.5 train', 'predictions': '71.4 val'}
  config['generator'] = {'method': 'vanilla', 'smoothing': 0.0}
  assert published.scores(config) == {}  # With label smoothing alone.
  assert published.scores({'dataset': {'name': 'shapes'}, 'generator': {'method': 'pnoc'}}) == {}


def test_a_supervised_run_is_named_and_compared_as_one(tmp_path):
  toy_run.write_run(tmp_path)
  toy_run.write_refinement(tmp_path)
  config = records.read_json(tmp_path / 'config.json')
  config['generator']['model'] = {'backbone': 'resnest269'}
  learns = {'labels': 'true', 'model': {'backbone': 'resnet50'}}
  config |= {'segmentation': learns, 'dataset': {'name': 'voc12'}}
  records.write_json(tmp_path / 'config.json', config)
  assert published.scores(config)['predictions'] == '80.6 val'
  (tmp_path / 'generator' / 'metrics.jsonl').unlink()
  records.write_done(tmp_path / 'segmentation', {}, {}, {})
  text = _page(tmp_path, images=0)
  assert 'Supervised on voc12' in text and 'P-NOC' not in text
  assert 'resnet50' in text and 'resnest269' not in text
  assert not toy_run.Checker(text).images and 'whole' not in text


def test_a_confusion_matrix_is_in_shares_of_the_true_class():
  result = {'iou': {'background': 1, 'cat': 1}, 'confusion': [[3, 1, 0], [0, 0, 0]]}
  percent, columns = confusion.shares(result)
  assert percent.tolist() == [[75, 25], [0, 0]] and columns == ('background', 'cat')
  result['confusion'][1] = [1, 0, 3]
  percent, columns = confusion.shares(result)
  assert percent[1].tolist() == [25, 0, 75] and columns[-1] == 'no class'
  assert '25 % of background is taken for cat' in confusion.chart(result, name='x', what='x')
  result['confusion'] = [[3, 0, 1], [0, 2, 0]]
  assert 'No class is taken for another one.' in confusion.chart(result, name='x', what='x')
  with pytest.raises(ValueError, match='2 classes'):
    confusion.shares({**result, 'confusion': [[1, 2], [3, 4]]})


def test_hints_tint_what_priors_are_sure_of():
  image = np.full((1, 3, 3), 100, np.uint8)
  tinted = refinement.hint_overlay(image, np.array([[0.4, 0.2, 0.05]]), strength=1.0)
  assert tinted[0].tolist() == [[*refinement.FOREGROUND], [100] * 3, [*refinement.BACKGROUND]]


def test_a_score_is_told_with_what_stands_beside_it():
  result = {'iou': {'background': 90.0, 'salient': 80.0}, 'miou': 85.0, 'miou_fg': 80.0}
  result |= {'maps': {'miou': 83.0, 'threshold': 0.35}, 'segmentation': {'miou': 70.0}}
  lines = tables.score({**result, 'priors': {'miou': 60.0}}).splitlines()
  assert lines[-3:] == [
    '2-class mIoU of the maps 83.0 at 0.35',
    'mIoU with the true classes 70.0',
    'mIoU with the priors 60.0',
  ]
