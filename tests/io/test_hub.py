"""Weights by name, with a hub that is made up."""

import hashlib
import logging
import pathlib
import sys
import types

import jax
import numpy as np
import pytest
import safetensors.numpy

from pnoc_jax import config as config_lib
from pnoc_jax.engine.runtime import Context, Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.io import hub, weights
from pnoc_jax.parallel import mesh as meshes
from pnoc_jax.runs import graph
from pnoc_jax.stages import classifier

NAME = 'hub:timm/resnest269e.in1k'
COMMIT = '0123456789' * 4


class FakeHub(types.ModuleType):
  """A cache in the hub's layout, and whether there is a connection."""

  def __init__(self, root, content=b'weights'):
    super().__init__('huggingface_hub')
    self.root, self.content, self.online, self.calls = root, content, True, []
    self.links = True

  def hf_hub_download(self, repository, file, *, revision=None):
    self.calls.append((repository, file, revision))
    digest = hashlib.sha256(self.content).hexdigest()
    blob, link = self.root / 'blobs' / digest, self.root / 'snapshots' / COMMIT / file
    if not link.exists():
      if not self.online:
        logging.getLogger('huggingface_hub.utils._http').warning('Retrying in 1s [Retry 1/5].')
        # What the real one raises is a FileNotFoundError.
        raise FileNotFoundError('\nCannot find the requested files in the disk cache.\nMore.')
      for path in (blob, link):
        path.parent.mkdir(parents=True, exist_ok=True)
      if self.links:
        blob.write_bytes(self.content)
        link.symlink_to(blob)
      else:
        link.write_bytes(self.content)
    return str(link)

  def hf_hub_url(self, repository, file, *, revision=None):
    return f'https://huggingface.co/{repository}/resolve/{revision or "main"}/{file}'

  def get_hf_file_metadata(self, url):
    self.calls.append(url)
    if not self.online:
      raise OSError('no connection')
    return types.SimpleNamespace(etag=hashlib.sha256(self.content).hexdigest())


@pytest.fixture
def fake(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  module = FakeHub(tmp_path / 'hub')
  monkeypatch.setitem(sys.modules, 'huggingface_hub', module)
  hub.fetch.cache_clear()
  yield module
  hub.fetch.cache_clear()


def test_it_is_downloaded_once_and_then_found_without_a_connection(fake, capsys):
  path = hub.fetch(NAME).path
  assert capsys.readouterr().err == f'looking for {NAME} at huggingface.co\n'
  assert path.read_bytes() == b'weights'
  assert hub.fetch(NAME).path == path
  assert fake.calls == [('timm/resnest269e.in1k', 'model.safetensors', None)]
  hub.fetch.cache_clear()
  fake.online = False
  assert hub.fetch(NAME).path == path
  # As one path object, which is how configs hand it on; and in a revision.
  assert weights.find(NAME) == path
  assert weights.find(f'{NAME}@v1.0') == path
  assert fake.calls[-1] == ('timm/resnest269e.in1k', 'model.safetensors', 'v1.0')


def test_what_was_downloaded_stands_in_the_stage_s_record(fake):
  config = config_lib.PipelineConfig()
  config.classifier.init = f'{NAME}@{COMMIT}'
  found = {
    'name': f'{NAME}@{COMMIT}',
    'sha256': hashlib.sha256(b'weights').hexdigest(),
    'revision': COMMIT,
  }
  assert graph.origins(classifier.STAGE, config) == {'classifier.init': found}
  assert fake.calls[-1] == ('timm/resnest269e.in1k', 'model.safetensors', COMMIT)


def test_without_a_connection_it_says_what_to_fetch_and_where_to_put_it(fake, tmp_path, caplog):
  fake.online = False
  with pytest.raises(UserError) as caught:
    weights.find(NAME)
  # Each of the hub's retries has words of its own, which tell nobody what to do.
  assert not caplog.records and logging.getLogger('huggingface_hub').level == logging.NOTSET
  place = tmp_path / 'cache' / 'pnoc_jax' / 'weights' / 'timm--resnest269e.in1k.safetensors'
  text = str(caught.value)
  assert '(Cannot find the requested files in the disk cache.)' in text
  assert 'https://huggingface.co/timm/resnest269e.in1k/resolve/main/model.safetensors' in text
  assert str(place) in text
  # Doing so helps.
  place.parent.mkdir(parents=True)
  place.write_bytes(b'by hand')
  assert weights.find(NAME) == place


def test_a_run_stops_before_work_without_it(fake):
  fake.online = False
  config = config_lib.PipelineConfig()
  config.classifier.init, config.classifier.model.backbone = NAME, 'resnest_tiny'
  mesh = meshes.make_mesh(jax.devices()[:1])
  runtime = Runtime(pathlib.Path(), mesh, mesh, config.runtime)
  with pytest.raises(UserError, match='cannot be downloaded'):
    graph.stage_settings(classifier.STAGE, config)
  view = classifier.STAGE.view(config)
  with pytest.raises(UserError, match='cannot be downloaded'):
    classifier.STAGE.check(Context('classifier', view, {}, pathlib.Path(), runtime))


def test_without_the_package_it_says_what_to_install(fake, monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(UserError, match=r"pip install 'pnoc-jax\[hub\]'; or fetch https://"):
    hub.fetch(NAME)


@pytest.mark.parametrize('links', [True, False])
def test_a_damaged_file_is_told(fake, links):
  fake.links = links
  path = hub.fetch(NAME).path
  path.resolve().write_bytes(b'other')
  hub.fetch.cache_clear()
  with pytest.raises(UserError, match='is damaged: its sha256 is d9298a10'):
    hub.fetch(NAME)


@pytest.mark.parametrize('name', ['hub:', 'hub:resnest269', 'hub:a/b/c', 'hub:a b/c', 'hub:a/b@'])
def test_a_name_that_is_none(fake, name):
  with pytest.raises(UserError, match=r'e\.g\. hub:timm/resnest269e\.in1k'):
    weights.find(name)
  assert not fake.calls


def test_a_network_starts_from_it(fake):
  template = {
    'params': {
      'backbone': {'stem': {'conv1': {'kernel': np.zeros((7, 7, 3, 64), np.float32)}}},
      'classifier': {'kernel': np.ones((1, 1, 4, 2), np.float32)},
    }
  }
  kernel = np.random.default_rng(0).normal(size=(64, 3, 7, 7)).astype(np.float32)
  fake.content = safetensors.numpy.save({'conv1.weight': kernel})
  found = weights.load_pretrained(NAME, template, arch='resnet18')
  stem = found['params']['backbone']['stem']['conv1']['kernel']
  assert np.array_equal(stem, kernel.transpose(2, 3, 1, 0))
  # Images with a fourth channel: it starts with the first one's filters.
  template['params']['backbone']['stem']['conv1']['kernel'] = np.zeros((7, 7, 4, 64), np.float32)
  found = weights.load_pretrained(NAME, template, arch='resnet18')
  wide = found['params']['backbone']['stem']['conv1']['kernel']
  assert np.array_equal(wide, stem[:, :, [0, 1, 2, 0]])
