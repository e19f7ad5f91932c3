"""Predicting files as a user has them: odd sizes and modes, broken ones, interrupted runs."""

import csv
import io
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from launch import export as export_launcher
from launch import predict
from pnoc_jax.data.readers import loose
from pnoc_jax.errors import UserError
from pnoc_jax.io import images, records
from pnoc_jax.predict import segmentation as pure
from pnoc_jax.runs import trained
from tests.launch import finished_run


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A finished run."""
  return finished_run.write(tmp_path_factory.mktemp('run'))


def _photograph(height, width, seed=0):
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
  return images.resize_bicubic(coarse, (height, width))


def _predict(run, path, output, *flags):
  return predict.main(
    [f'--run={run}', f'--input={path}', f'--output={output}', '--scales=1', *flags]
  )


@pytest.fixture(scope='module')
def album(tmp_path_factory):
  """A folder of what users have; every image shows the same scene where that is possible."""
  folder = tmp_path_factory.mktemp('album')
  scene = _photograph(40, 56)
  grey = scene[..., 0]
  (folder / 'below').mkdir()
  Image.fromarray(scene).save(folder / 'plain.png')
  Image.fromarray(scene).save(folder / 'below' / 'plain.png')
  Image.fromarray(grey).save(folder / 'grey.png')
  Image.fromarray(np.repeat(grey[..., None], 3, -1)).save(folder / 'grey_rgb.png')
  Image.fromarray(np.dstack([scene, np.full(grey.shape, 9, np.uint8)])).save(folder / 'rgba.png')
  Image.fromarray(grey.astype(np.uint16) * 257).save(folder / 'deep.png')
  turned = Image.Exif()
  turned[0x0112] = 6  # The viewer turns it by 90 degrees clockwise.
  Image.fromarray(np.ascontiguousarray(np.rot90(scene))).save(folder / 'exif.png', exif=turned)
  Image.fromarray(scene[:1, :1]).save(folder / 'one.png')
  Image.fromarray(np.full((3000, 5000, 3), 90, np.uint8)).save(folder / 'large.png')
  (folder / 'corrupt.jpg').write_bytes(b'\xff\xd8\xff\xe0 this is no photograph')
  whole = folder / 'whole.jpg'
  Image.fromarray(scene).save(whole)
  (folder / 'cut.jpg').write_bytes(whole.read_bytes()[:-300])
  (folder / 'notes.txt').write_text('no image')
  (folder / 'telephone.HEIC').write_bytes(b'of a format that is not read')
  return folder


@pytest.fixture(scope='module')
def predicted(run, album, tmp_path_factory):
  """The album's label maps."""
  output = tmp_path_factory.mktemp('predicted')
  assert _predict(run, album, output, '--max_side=64', '--overlay') == 0
  return output


def _labels(output, name):
  return images.read_mask(output / f'{name}.png')


def test_label_maps_have_the_sizes_of_their_images(album, predicted):
  for name in ('plain', 'below/plain', 'grey', 'rgba', 'deep', 'exif', 'one', 'large', 'whole'):
    file = next(f for f in album.glob(f'{name}.*'))
    assert _labels(predicted, name).shape == images.image_size(file), name
    assert images.read_image(predicted / 'overlays' / f'{name}.png').shape[:2] == (
      images.image_size(file)
    )


def test_modes_and_orientation_do_not_change_the_labels(predicted):
  plain = _labels(predicted, 'plain')
  assert len(np.unique(plain)) > 1
  for name in ('below/plain', 'rgba', 'exif'):
    np.testing.assert_array_equal(_labels(predicted, name), plain, err_msg=name)
  for name in ('grey', 'deep'):
    np.testing.assert_array_equal(_labels(predicted, name), _labels(predicted, 'grey_rgb'))


def test_it_says_what_the_pure_call_says(run, predicted, album):
  found = trained.load(run)
  image = images.read_image(album / 'plain.png')
  mean, std = np.array(found.dataset.mean), np.array(found.dataset.std)
  normalized = ((image / 255 - mean) / std)[None].astype(np.float32)
  size = np.array([image.shape[:2]], np.int32)
  probabilities = pure.probabilities(
    found.model, found.variables, [normalized], [size], size, shape=image.shape[:2]
  )
  expected = np.asarray(probabilities)[0].argmax(-1)
  # Padding moves the last bits: a pixel between two labels may fall to either.
  assert (_labels(predicted, 'plain') == expected).mean() > 0.998


def test_unreadable_files_are_listed_and_the_others_made(predicted):
  with open(predicted / 'skipped.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  found = {pathlib.Path(row['file']).name: row['why'] for row in rows}
  assert sorted(found) == ['corrupt.jpg', 'cut.jpg', 'telephone.HEIC']
  assert 'convert it' in found.pop('telephone.HEIC')
  assert all(name in why for name, why in found.items())
  assert not (predicted / 'cut.png').exists()


def test_what_is_there_is_kept_and_what_is_missing_made(run, album, predicted, capsys):
  before = (predicted / 'plain.png').stat().st_mtime_ns
  content = (predicted / 'grey.png').read_bytes()
  (predicted / 'grey.png').write_bytes(content[:40])
  assert _predict(run, album, predicted, '--max_side=64', '--overlay') == 0
  assert '1 label maps made, 9 kept' in capsys.readouterr().out
  assert (predicted / 'plain.png').stat().st_mtime_ns == before
  assert (predicted / 'grey.png').read_bytes() == content


def _contents(folder):
  return {file: file.read_bytes() for file in sorted(folder.rglob('*')) if file.is_file()}


@pytest.fixture
def photographs(tmp_path):
  """Images that a careless command would replace: two of them PNGs that readers cannot check."""
  folder = tmp_path / 'in' / 'photos'
  folder.mkdir(parents=True)
  scene = Image.fromarray(_photograph(16, 24))
  scene.save(folder / 'sound.png')
  scene.save(folder / 'jpeg.png', format='JPEG')
  scene.save(folder / 'tail.png')
  (folder / 'tail.png').write_bytes((folder / 'tail.png').read_bytes() + b'more')
  (folder / 'below').mkdir()
  scene.save(folder / 'below' / 'x.png')
  return folder


@pytest.mark.parametrize('place', ['', 'below', 'below/new', '..', '../..', 'link', 'link/new'])
def test_an_output_that_overlaps_with_the_input_is_refused(run, photographs, place, capsys):
  os.symlink(photographs, photographs.parent.parent / 'link')
  if place.startswith('link'):
    output = photographs.parent.parent / place
  else:
    output = photographs / place
  before = _contents(photographs.parent)
  for path in (photographs, photographs / 'sound.png'):
    if path.is_dir() or place in ('', '..', '../..', 'link'):
      assert _predict(run, path, output) == 2
      assert 'the output' in capsys.readouterr().err
  assert _contents(photographs.parent) == before


def test_an_output_that_overlaps_through_a_link_is_refused(run, photographs, tmp_path, capsys):
  album, output = tmp_path / 'album', tmp_path / 'out'
  album.mkdir()
  output.mkdir()
  os.symlink(photographs / 'sound.png', album / 'a.png')
  assert _predict(run, album, photographs) == 2
  assert f'{album / "a.png"} lies in the output' in capsys.readouterr().err
  os.symlink(photographs / 'below', output / 'below')
  before = _contents(photographs)
  assert _predict(run, photographs, output) == 2
  assert 'is, through a link, a directory of the input' in capsys.readouterr().err
  assert _contents(photographs) == before and [x.name for x in output.iterdir()] == ['below']


def test_a_file_that_the_command_did_not_write_is_never_replaced(
  run, photographs, tmp_path, capsys
):
  output = tmp_path / 'out'
  for name in ('sound.png', 'overlays/below/x.png', 'skipped.csv'):
    target = output / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(photographs / 'sound.png', target)
    before = _contents(output)
    assert _predict(run, photographs, output, '--overlay') == 2
    assert f'would replace them: {target}' in capsys.readouterr().err
    assert _contents(output) == before
    target.unlink()
  # Nor does it count as a label map that is there: all four are made.
  assert _predict(run, photographs, output) == 0
  assert '4 label maps made, 0 kept' in capsys.readouterr().out
  assert _predict(run, photographs, output) == 0
  assert '0 label maps made, 4 kept' in capsys.readouterr().out
  # A label map that a person mended is kept, and not replaced by that of other settings.
  images.write_png(output / 'sound.png', np.full((16, 24), 1, np.uint8))
  assert _predict(run, photographs, output) == 0
  assert (_labels(output, 'sound') == 1).all()
  assert _predict(run, photographs, output, '--max_side=8') == 2
  assert 'were changed since' in capsys.readouterr().err
  (output / 'sound.png').unlink()
  capsys.readouterr()
  assert _predict(run, photographs, output, '--max_side=8') == 0
  assert '4 label maps made, 0 kept' in capsys.readouterr().out


def test_a_changed_image_is_segmented_again(run, photographs, tmp_path, capsys):
  assert _predict(run, photographs, tmp_path / 'out') == 0
  Image.fromarray(_photograph(32, 16, 3)).save(photographs / 'below' / 'x.png')
  capsys.readouterr()
  assert _predict(run, photographs, tmp_path / 'out') == 0
  assert '1 label maps made, 3 kept' in capsys.readouterr().out
  assert _labels(tmp_path / 'out', 'below/x').shape == (32, 16)


def test_names_of_any_bytes_and_lengths(run, tmp_path, capsys):
  folder = tmp_path / 'in'
  folder.mkdir()
  content = io.BytesIO()
  Image.fromarray(_photograph(16, 24)).save(content, 'PNG')
  names = ['x' * 251 + '.jpg', os.fsdecode(b'caf\xe9.png'), 'cafe\u0301.png', 'caf\u00e9.png']
  for name in names:
    (folder / name).write_bytes(content.getvalue())
  (folder / os.fsdecode(b'br\xf6ken.png')).write_bytes(b'no image')
  assert _predict(run, folder, tmp_path / 'out') == 0
  assert '4 label maps made, 0 kept' in capsys.readouterr().out
  for name in names:
    assert _labels(tmp_path / 'out', pathlib.Path(name).stem).shape == (16, 24)
  assert b'br\\udcf6ken.png' in (tmp_path / 'out' / 'skipped.csv').read_bytes()
  assert _predict(run, folder, tmp_path / 'out') == 0
  assert '0 label maps made, 4 kept' in capsys.readouterr().out
  (folder / ('x' * 251 + '.png')).write_bytes(content.getvalue())
  assert _predict(run, folder, tmp_path / 'new') == 2
  assert 'too long; rename this image' in capsys.readouterr().err


def test_two_images_never_share_a_file(run, tmp_path, capsys):
  for name in ('a.png', 'overlays/a.jpg'):
    (tmp_path / 'in' / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_photograph(16, 24)).save(tmp_path / 'in' / name)
  assert _predict(run, tmp_path / 'in', tmp_path / 'out', '--overlay') == 2
  assert 'would be made for two images' in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()


def test_bad_arguments_are_refused_with_a_line(run, tmp_path, capsys):
  (tmp_path / 'empty').mkdir()
  file = tmp_path / 'file'
  file.write_text('x')
  cases = (
    ([run, tmp_path / 'empty', tmp_path / 'o'], 'holds no image'),
    ([run, tmp_path / 'nowhere', tmp_path / 'o'], 'no such file or directory'),
    ([tmp_path / 'norun', tmp_path, tmp_path / 'o'], 'no such directory'),
    ([tmp_path, tmp_path, tmp_path / 'o'], 'no trained segmentation network'),
    ([run, tmp_path, file], 'is a file'),
    ([run, tmp_path, tmp_path / 'o', '--max_side=0'], 'at least 1'),
    *(
      ([run, tmp_path, tmp_path / 'o', f'--scales={x}'], 'positive scales')
      for x in ('0', 'nan', '1e9')
    ),
  )
  for arguments, expected in cases:
    assert _predict(*arguments) == 2, expected
    assert expected in capsys.readouterr().err
  assert not (tmp_path / 'o').exists()


def test_inference_is_the_runs_unless_flags_say_otherwise(run, tmp_path, monkeypatch):
  used = []

  def predict_files(found, path, output, *, config, **options):
    used.append((config.scales, config.crf.steps, config.crf.bilateral_sxy))
    return trained.Summary(1, 0, ())

  monkeypatch.setattr(trained, 'predict_files', predict_files)
  shutil.copytree(run / 'segmentation', tmp_path / 'segmentation')
  settings = {'scales': [1.0, 1.5], 'crf': {'steps': 3, 'bilateral_sxy': 21.0}}
  records.write_json(tmp_path / 'config.json', {'predictions': settings})
  arguments = [f'--input={tmp_path}', f'--output={tmp_path / "o"}']
  for directory in (tmp_path, tmp_path / 'segmentation'):
    assert predict.main([f'--run={directory}', *arguments]) == 0
  assert predict.main([f'--run={tmp_path}', *arguments, '--scales=2,1', '--crf']) == 0
  assert used == [((1.0, 1.5), 0, 21.0), ((1.0, 1.5), 0, 21.0), ((2.0, 1.0), 3, 21.0)]


def test_files_that_differ_in_their_suffix_alone_keep_it(tmp_path):
  for name in ('a.png', 'a.jpg', 'b.png'):
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / name)
  assert [name for name, _ in loose.find(tmp_path)] == ['a.jpg', 'a.png', 'b']
  assert [name for name, _ in loose.find(tmp_path / 'a.jpg')] == ['a']
  with pytest.raises(UserError, match='no such file'):
    loose.find(tmp_path / 'c')


def test_the_exported_network_runs_without_this_package(run, album, tmp_path):
  output = tmp_path / 'exported'
  assert export_launcher.main([f'--run={run}', f'--output={output}']) == 0
  assert export_launcher.main([f'--run={run}', f'--output={output}']) == 2
  program = (
    'import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__"); '
    'assert not [name for name in sys.modules if name.startswith("pnoc_jax")]'
  )
  # Stored on its side, as a telephone does: the run sees it upright, and so does the example.
  plain, exif = Image.open(album / 'plain.png'), Image.Exif()
  exif[0x0112] = 6
  plain.transpose(Image.Transpose.ROTATE_90).save(tmp_path / 'turned.png', exif=exif)
  np.testing.assert_array_equal(images.read_image(tmp_path / 'turned.png'), np.asarray(plain))
  done = subprocess.run(
    [sys.executable, '-I', '-c', program, output / 'example.py', 'turned.png', 'labels.png'],
    cwd=tmp_path,
    env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'},
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  found = trained.load(run)
  side = finished_run.CROP
  image = np.asarray(plain.resize((side, side), Image.Resampling.BICUBIC), np.uint8)
  mean, std = np.array(found.dataset.mean), np.array(found.dataset.std)
  batch = np.stack([((image / 255 - mean) / std).astype(np.float32)] * 3)
  expected = np.asarray(jax.nn.softmax(found.model.apply(found.variables, batch, train=False)))
  # Another batch size than the example's. The last layer is 30 times larger than usual, and so are
  # the differences of rounding.
  exported = jax.export.deserialize(bytearray((output / 'model.stablehlo').read_bytes()))
  np.testing.assert_allclose(exported.call(np.stack([image] * 3)), expected, atol=1e-4)
  labels = Image.fromarray(expected[0].argmax(-1).astype(np.uint8)).resize((56, 40), 0)
  assert (images.read_mask(tmp_path / 'labels.png') == np.asarray(labels)).mean() > 0.998
