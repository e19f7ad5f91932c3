"""A finished run's segmentation network, ready for images of any origin."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pnoc_jax.data import deep, info, names
from pnoc_jax.data.readers import loose
from pnoc_jax.engine import log, networks, per_image, settings
from pnoc_jax.engine.runtime import Runtime, RuntimeConfig
from pnoc_jax.errors import UserError
from pnoc_jax.io import images, records, sheets, weights
from pnoc_jax.nn import deeplab
from pnoc_jax.parallel import mesh as meshes
from pnoc_jax.report import files, pictures
from pnoc_jax.runs import written
from pnoc_jax.stages import predictions, segmentation
from pnoc_jax.stages.common import maps
from pnoc_jax.types import Variables

SKIPPED = 'skipped.csv'
OVERLAYS = 'overlays'
_LONGEST = 255  # Bytes of a file's name.
_LARGEST_CROP = 1 << 15  # Pixels.


class Trained(NamedTuple):
  """A network and what there is to know about its use.

  Attributes:
    model: the network; its pure call is `predict.segmentation.probabilities`.
    variables: its weights, float32 host arrays.
    dataset: classes, palette and normalisation.
    crop: side in pixels of the squares it was trained on.
    inference: scales, flips, CRF and the square that images are squeezed to, as in the run.
  """

  model: deeplab.DeepLab
  variables: Variables
  dataset: info.DatasetInfo
  crop: int
  inference: predictions.PredictionsConfig

  def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Segments images in memory as the run segments its own: same scales, squeezing and CRF.

    Args:
      images: u8[H, W, C] each, of any sizes. A call compiles for the sizes of its images, so it is
        better to give many images to one call.

    Returns:
      The labels i32[H, W] of each image: 0 is the background, k + 1 is `dataset.classes[k]`.

    Raises:
      ValueError: an image has another shape or type.
    """
    source = loose.ImageArrays(images, self.dataset)
    sizes = [source.size(index) for index in range(len(source))]
    config = dataclasses.replace(self.inference, batch_size=1)
    segment = predictions.Segmenter(
      self.model, self.variables, self.dataset, config, local_runtime(Path()), sizes=sizes
    )
    found = dict(segment(source, list(range(len(source)))))
    return [found[index].astype(np.int32) for index in range(len(source))]


def load(run: str | Path) -> Trained:
  """Reads the network of a finished run.

  Args:
    run: the run's directory, which may take the network of another one (`inputs.segmentation`), or
      that of its stage `segmentation`.

  Raises:
    UserError: there is no such run, or it has not come to its segmentation network.
  """
  directory = find(run)
  facts = read_facts(directory)
  config = read_config(run)
  try:
    head = files.from_dict(segmentation.HeadConfig, facts.meta['head'])
    if faults := segmentation.head_faults(head):
      raise ValueError('; '.join(faults))
    # How the run treats images is part of its config, not of the weights.
    inference = files.from_dict(predictions.PredictionsConfig, config.get('predictions', {}))
  except (KeyError, TypeError, ValueError) as error:
    raise _not_of(directory, 'segmentation', error) from error
  built = segmentation.SegmentationConfig(model=facts.model, head=head)
  model = segmentation.build(built, facts.dataset.num_classes)
  variables = networks.load(model, facts.dataset, directory)
  return Trained(model, variables, facts.dataset, facts.crop, inference)


class Facts(NamedTuple):
  """What a weights file says of its network.

  Attributes:
    model: the backbone's settings.
    dataset: classes, palette and normalisation.
    crop: side in pixels of the squares it was trained on.
    meta: all that the file says.
  """

  model: settings.ModelConfig
  dataset: info.DatasetInfo
  crop: int
  meta: dict[str, Any]


def read_facts(directory: Path, stage: str = 'segmentation') -> Facts:
  """Reads what the weights of a stage say of their network.

  Raises:
    UserError: they are of another network, or damaged.
  """
  meta = weights.load_meta(directory)
  try:
    model = files.from_dict(settings.ModelConfig, meta['model'])
    known = {**meta['dataset'], 'palette': [tuple(color) for color in meta['dataset']['palette']]}
    dataset = files.from_dict(info.DatasetInfo, known)
    _check_dataset(dataset)
    crop = meta['crop']
    if not isinstance(crop, int) or not 0 <= crop <= _LARGEST_CROP:
      raise ValueError(f'its crop is {crop!r:.20}')
    return Facts(model, dataset, crop, meta)
  except (KeyError, TypeError, ValueError) as error:
    raise _not_of(directory, stage, error) from error


def _not_of(directory: Path, stage: str, error: Exception) -> UserError:
  return UserError(
    f'{directory / weights.FILE} are not the weights of a {stage} network, or of an older version '
    f'of this package ({error!r})'
  )


def _check_dataset(dataset: info.DatasetInfo) -> None:
  """Raises ValueError if a description cannot be that of a network's classes."""
  of_classes = (dataset.background, *dataset.classes)
  faults = [names.text_fault(x) for x in of_classes]
  if any(faults):
    raise ValueError(f'a class {next(filter(None, faults))}')
  if len(set(of_classes)) < len(of_classes):
    raise ValueError('two of its classes have one name')
  if fault := names.text_fault(dataset.name, names.LONGEST_ID):
    raise ValueError(f'the name of its data set {fault}')
  colors = np.array(dataset.palette)
  if colors.shape != (dataset.num_classes + 1, 3) or colors.min() < 0 or colors.max() > 255:
    raise ValueError('its palette has other colours than its classes')
  finite = np.isfinite([*dataset.mean, *dataset.std]).all()
  if not finite or len(dataset.mean) != len(dataset.std) or min(dataset.std, default=0) <= 0:
    raise ValueError('its normalisation is none')


def find(run: str | Path, stage: str = 'segmentation') -> Path:
  """The directory of a run's network.

  Args:
    run: the run's directory, which may take the network of another one (`inputs.STAGE`), or that of
      the stage.
    stage: whose network it is.

  Raises:
    UserError: there is no such run, or it has not come to this network.
  """
  run = Path(run)
  if not run.is_dir():
    raise UserError(f'{run}: no such directory; name the --workdir of a finished run')
  if (run / weights.FILE).is_file():
    return run
  taken = files.lookup(read_config(run), f'inputs.{stage}', '')
  directory = Path(taken) if taken else run / stage
  if not directory.is_dir():
    raise UserError(
      f'{run} holds no trained {stage} network ({directory} is missing): run it '
      f'through the stage {stage} first'
    )
  return directory


def read_config(run: str | Path) -> dict[str, Any]:
  """A run's config, empty where there is none; `run` may be the directory of one of its stages."""
  run = Path(run)
  file = (run.parent if (run / weights.FILE).is_file() else run) / 'config.json'
  return records.read_object(file) if file.is_file() else {}


@dataclasses.dataclass(frozen=True)
class Summary:
  """What became of the files.

  Attributes:
    made: label maps made by this call.
    kept: label maps that were there already.
    skipped: (file, why) of what could not be read.
  """

  made: int
  kept: int
  skipped: tuple[tuple[Path, str], ...]


def predict_files(
  trained: Trained,
  path: str | Path,
  output: str | Path,
  *,
  config: predictions.PredictionsConfig | None = None,
  overlay: bool = False,
  max_side: int = 1024,
  runtime: Runtime | None = None,
) -> Summary:
  """Writes the label map of every image at a path, in the image's own size; keeps what is there.

  The record `written.jsonl` in the output says of each file what it was made of. A label map is
  kept if the network, the settings and the image are the same, else it is made again. A file that
  is not in the record, or was changed since, is never replaced.

  Args:
    trained: the network.
    path: an image, or a directory of images.
    output: directory of `<name>.png` and, with `overlay`, `overlays/<name>.png`; files that cannot
      be read are listed in `skipped.csv` there. It neither holds the input nor lies in it.
    config: scales, flips and CRF, `trained.inference` by default; its `splits` are not looked at.
    overlay: also lay the labels over the images.
    max_side: images with a longer side, in pixels, are segmented at this size, and their label maps
      enlarged.
    runtime: where to run; all devices of this process by default.

  Returns:
    How many were made, kept and skipped.

  Raises:
    UserError: there is no image at the path; `output` is a file, overlaps with the input, or holds
      files that would be replaced and that this function did not write.
  """
  path, output = Path(path), Path(output)
  config = config or trained.inference
  if output.exists() and not output.is_dir():
    raise UserError(f'{output} is a file; name a directory for the label maps')
  if max_side < 1:
    raise UserError(f'the longest side to segment is {max_side} px; it is at least 1')
  found = loose.find(path)
  written.check_apart(path, [file for _, file in found], output)
  with written.Written(output) as record:
    targets = _Targets(output, record, overlay, _network(trained, config, max_side))
    targets.check(found)
    named, skipped, white = _readable(found)
    skipped += [
      (x, 'its format is not read; convert it to PNG or JPEG') for x in loose.unread(path)
    ]
    _write_skipped(targets, skipped)
    if not named:
      return Summary(0, 0, tuple(skipped))
    source = loose.LooseImages(named, trained.dataset, max_side=max_side, white=white)

    def results(indices: list[int]) -> Iterator[per_image.Result]:
      for index, labels in segment(source, indices):
        yield index, functools.partial(_write, targets, source, index, labels)

    runtime = runtime or local_runtime(output)
    segment = predictions.Segmenter(
      trained.model,
      trained.variables,
      trained.dataset,
      config,
      runtime,
      sizes=[source.size(i) for i in range(len(source))],
    )
    of_path = {targets.map(name): file for name, file in named}
    job = per_image.Job(
      'predictions',
      source,
      range(len(source)),
      output,
      results,
      lambda at: targets.done(at, of_path[at]),
    )
    made = per_image.make(job, runtime)
  return Summary(made, len(source) - made, tuple(skipped))


@dataclasses.dataclass(frozen=True)
class _Targets:
  """The files of an output, and the record of those that are there.

  Attributes:
    output: the directory.
    record: what was written there before.
    overlay: whether overlays are made.
    network: digest of the network and its settings.
  """

  output: Path
  record: written.Written
  overlay: bool
  network: str

  def map(self, name: str) -> Path:
    """Of an image's labels."""
    return per_image.image_path(self.output, '', name)

  def all(self, name: str) -> list[Path]:
    """Of an image: the overlay if there shall be one, then the labels."""
    return [*([self.output / OVERLAYS / f'{name}.png'] if self.overlay else []), self.map(name)]

  def made_of(self, file: Path) -> str:
    """What the files of an image are made of: the network, its settings, the image as it is now."""
    try:
      stat = file.stat()
    except OSError:
      return ''  # A link to nothing; it is skipped when it is read.
    return f'{self.network} {stat.st_size} {stat.st_mtime_ns}'

  def check(self, found: Sequence[tuple[str, Path]]) -> None:
    """Refuses to work where files of others would be replaced, or two images share a file."""
    wanted = {self.output / SKIPPED: ''}
    for name, file in found:
      for target in self.all(name):
        if len(os.fsencode(target.name)) > _LONGEST:
          raise UserError(f'{file}: the name of its label map would be too long; rename this image')
        if target in wanted:
          raise UserError(
            f'{target} would be made for two images, one of them {file}: rename this image or the '
            f'directory {OVERLAYS}/ of the input'
          )
        wanted[target] = self.made_of(file)
    written.check_folders({target.parent for target in wanted}, [file for _, file in found])
    self.record.check(wanted, filter(maps.exists_png, wanted))

  def done(self, path: Path, file: Path) -> bool:
    """Whether the files of an image are there, whole and up to date; `path` is of its labels."""
    targets = self.all(path.relative_to(self.output).as_posix().removesuffix('.png'))
    made_of = self.made_of(file)
    return all(self.record.made_of(x) == made_of and maps.exists_png(x) for x in targets)


def _network(trained: Trained, config: predictions.PredictionsConfig, max_side: int) -> str:
  """Digest of all that labels depend on beside the image."""
  sha = hashlib.sha256(repr((trained.model, trained.dataset, config, max_side)).encode())
  for leaf in jax.tree.leaves(trained.variables):
    sha.update(np.ascontiguousarray(leaf).tobytes())
  return sha.hexdigest()[:24]


def local_runtime(workdir: Path) -> Runtime:
  """A runtime on this process's devices, for work outside of a run."""
  mesh = meshes.make_mesh(jax.local_devices())
  return Runtime(workdir, mesh, mesh, RuntimeConfig())


def _readable(named):
  """Splits files into those that decode and (file, why) of the others; their range of values."""
  good, skipped, extents = [], [], []
  for name, file in log.track(named, 'reading images', total=len(named)):
    try:
      images.read_image(file)
      good.append((name, file))
      extents.append(images.extent(file))
    except UserError as error:
      skipped.append((file, str(error)))
  white, said = deep.describe([x for _, x in good], extents)
  for sentence in said:
    print('note:', sentence.encode(errors='backslashreplace').decode(), flush=True)
  return good, skipped, white


def _write_skipped(targets: _Targets, skipped) -> None:
  path = targets.output / SKIPPED
  if not skipped:
    targets.record.remove(path)
    return
  text = sheets.text(('file', 'why'), skipped)
  targets.record.write(path, text.encode(errors='backslashreplace'), '')


def _write(
  targets: _Targets, source: loose.LooseImages, index: int, labels: np.ndarray, path: Path
) -> None:
  size, made_of = source.original_size(index), targets.made_of(source.files(index)[0])
  if labels.shape != size:
    labels = images.resize_nearest(labels.astype(np.uint8), size)
  labels, palette = labels.astype(np.uint8), source.info.palette
  for laid in targets.all(source.ids[index])[:-1]:
    blended = pictures.blend(source.original(index), labels, palette)
    targets.record.write(laid, images.encode_png(blended), made_of)
  # Last: what is there is whole.
  data = images.encode_png(labels, palette=np.asarray(palette, np.uint8))
  targets.record.write(path, data, made_of)
