"""What is started on clusters: the scripts do what they say, and the manifest is one."""

import os
import pathlib
import shutil
import subprocess
import sys

import jsonschema
import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted([*ROOT.glob('launch/*.sh'), *ROOT.glob('benchmarks/*.sh'), ROOT / '.ci' / 'run'])


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_free_of_what_shellcheck_finds(script):
  assert os.access(script, os.X_OK)
  subprocess.run(['bash', '-n', script], check=True)
  here = pathlib.Path(sys.executable).parent
  shellcheck = shutil.which('shellcheck', path=f'{here}{os.pathsep}{os.environ["PATH"]}')
  if shellcheck is None:
    pytest.skip('shellcheck is not installed')
  done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stdout


def _run(tmp_path, script, *arguments, code=0, **environment):
  """Runs a script whose cluster commands only write down how they were called."""
  for name in ('srun', 'scontrol', 'gcloud'):
    stub, status = tmp_path / name, code if name == 'srun' else 0
    stub.write_text(
      f'#!/bin/bash\necho {name} "$@" JAX_LOCAL_DEVICE_IDS="${{JAX_LOCAL_DEVICE_IDS:-}}" '
      f'>>{tmp_path}/calls\nexit {status}\n'
    )
    stub.chmod(0o755)
  path = f'{tmp_path}:{os.environ["PATH"]}'
  command = ['bash', ROOT / 'launch' / script, *arguments]
  done = subprocess.run(command, env=os.environ | environment | {'PATH': path}, check=False)
  return done.returncode, (tmp_path / 'calls').read_text().splitlines()


@pytest.mark.parametrize(('code', 'requeued'), [(143, True), (130, False), (1, False), (0, False)])
def test_a_run_that_the_time_limit_stopped_is_queued_again(tmp_path, code, requeued):
  facts = {'SLURM_JOB_ID': '7', 'SLURM_GPUS_ON_NODE': '4', 'SLURM_CPUS_PER_TASK': '32'}
  status, calls = _run(tmp_path, 'slurm.sh', '--config=x y.py', code=code, **facts)
  assert status == code
  assert 'launch/run.py' in calls[0] and '--config=x y.py' in calls[0]
  # A task has all GPUs of its node.
  assert calls[0].endswith('JAX_LOCAL_DEVICE_IDS=0,1,2,3') and '--cpus-per-task=32' in calls[0]
  assert ['scontrol requeue 7' in call for call in calls[1:]] == [True] * requeued


def test_every_host_of_a_slice_gets_the_command_as_it_was_written(tmp_path):
  status, calls = _run(tmp_path, 'tpu_vm.sh', 'slice', 'zone', '--config=x.py', '--workdir=a b')
  assert status == 0 and len(calls) == 1
  assert 'ssh slice --zone=zone --worker=all' in calls[0]
  assert r'launch/run.py --distributed=on --config=x.py --workdir=a\ b' in calls[0]


def _object(required, **properties):
  return {
    'type': 'object',
    'required': required,
    'properties': properties,
    'additionalProperties': False,
  }


_NUMBER, _TEXT = {'type': 'integer', 'minimum': 0}, {'type': 'string', 'minLength': 1}
_CONTAINER = _object(
  ['name', 'image', 'command', 'args'],
  name=_TEXT,
  image=_TEXT,
  workingDir=_TEXT,
  ports={'type': 'array', 'items': _object(['containerPort'], containerPort=_NUMBER)},
  command={'type': 'array', 'items': _TEXT},
  args={'type': 'array', 'items': _TEXT},
  resources=_object(['limits'], limits={'type': 'object'}),
  volumeMounts={
    'type': 'array',
    'items': _object(
      ['name', 'mountPath'], name=_TEXT, mountPath=_TEXT, readOnly={'type': 'boolean'}
    ),
  },
)
_POD = _object(
  ['containers', 'restartPolicy'],
  restartPolicy={'enum': ['Never', 'OnFailure']},
  terminationGracePeriodSeconds=_NUMBER,
  containers={'type': 'array', 'items': _CONTAINER, 'minItems': 1},
  volumes={
    'type': 'array',
    'items': _object(
      ['name'],
      name=_TEXT,
      persistentVolumeClaim=_object(['claimName'], claimName=_TEXT),
      emptyDir=_object([], medium={'enum': ['', 'Memory']}, sizeLimit=_TEXT),
    ),
  },
)
_JOB = _object(
  ['template'],
  completionMode={'enum': ['Indexed']},
  parallelism=_NUMBER,
  completions=_NUMBER,
  backoffLimit=_NUMBER,
  template=_object(['spec'], spec=_POD),
)
_REPLICATED = _object(
  ['name', 'template'], name=_TEXT, replicas=_NUMBER, template=_object(['spec'], spec=_JOB)
)
JOBSET = _object(
  ['apiVersion', 'kind', 'metadata', 'spec'],
  apiVersion={'const': 'jobset.x-k8s.io/v1alpha2'},
  kind={'const': 'JobSet'},
  metadata=_object(['name'], name=_TEXT),
  spec=_object(
    ['replicatedJobs'],
    network=_object([], enableDNSHostnames={'type': 'boolean'}),
    failurePolicy=_object([], maxRestarts=_NUMBER),
    replicatedJobs={'type': 'array', 'items': _REPLICATED, 'minItems': 1},
  ),
)
"""The part of the API of JobSet, Job and Pod that the manifest uses."""


def test_the_manifest_is_a_job_set_whose_pods_find_each_other():
  manifest = yaml.safe_load((ROOT / 'launch' / 'jobset.yaml').read_text())
  jsonschema.validate(manifest, JOBSET)
  (job,) = manifest['spec']['replicatedJobs']
  spec, name = job['template']['spec'], manifest['metadata']['name']
  pod = spec['template']['spec']
  (container,) = pod['containers']
  (command,) = container['args']
  flags = dict(word.split('=', 1) for word in command.split() if word.startswith('--'))
  # The name of pod 0 of job 0, as JobSet makes it; its subdomain is the JobSet's name.
  port = container['ports'][0]['containerPort']
  assert flags['--config.runtime.coordinator'] == f'{name}-{job["name"]}-0-0.{name}:{port}'
  assert job['replicas'] == 1 and spec['parallelism'] == spec['completions']
  assert flags['--config.runtime.num_processes'] == str(spec['parallelism'])
  assert flags['--config.runtime.process_id'] == '"$JOB_COMPLETION_INDEX"'
  mounts = {mount['name']: mount['mountPath'] for mount in container['volumeMounts']}
  assert mounts.keys() == {volume['name'] for volume in pod['volumes']}
  assert flags['--config.dataset.root'] == mounts['data']
  assert flags['--workdir'].startswith(mounts['runs'])
  # `exec`: SIGTERM is for Python. The config and its fields are there.
  assert command.startswith('exec python launch/run.py ')
  assert (ROOT / flags['--config'].partition(':')[0]).is_file()
