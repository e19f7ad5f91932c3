"""Runs of the tiny config as far as plans and tables read them: their records, and no more."""

import functools
import pathlib

from pnoc_jax import config_flags
from pnoc_jax.data import sources
from pnoc_jax.io import records
from pnoc_jax.paper import command, plan, rows
from pnoc_jax.runs import graph
from tests.report import toy_run

ROOT = pathlib.Path(__file__).parents[2]
TINY = ROOT / 'tests' / 'configs' / 'tiny.py'
IOU = {'poc': (40.0, 50.0, 60.0), 'pnoc': (55.0, 56.0, 60.0), 'vanilla': (30.0, 31.0, 32.0)}
GIVEN = config_flags.Given(str(TINY), '', {'generator.eval_every': 1})
make = rows.maker(GIVEN)


@functools.cache
def source(split='train'):
  return sources.open_source(make(()).dataset, split)


def order(workdir, **what):
  return command.Order(make(()), make, workdir, **{'seeds': 3, **what})


def planned(workdir, names, seeds=(0,), others=()):
  known = {row.name: row for row in rows.ALL}
  return plan.runs(
    [known[x] for x in names], seeds, make, workdir, others=[known[x] for x in others]
  )


def toy(split):
  return toy_run.Source()


def shared(run):
  """{stage: the directory of another run from which it comes}."""
  found = {name: getattr(run.config.inputs, name, '') for name in graph.needed(run.config)}
  return {name: pathlib.Path(path).parent.name for name, path in found.items() if path}


def finish(config, workdir, miou=50.0, stages=None):
  """Leaves what a run of a config leaves, as far as plans and tables read it."""
  known = {split: source(split) for split in ('train', 'val')}
  for item in graph.make_plan(config, workdir, known):
    if item.runs and (stages is None or item.stage.name in stages):
      item.directory.mkdir(parents=True)
      graph.finish(item, {'seconds': 60.0})
  if stages is not None:
    return
  with records.JsonLines(workdir / 'generator' / 'metrics.jsonl') as file:
    for epoch in range(1, config.generator.epochs + 1):
      file.write({'step': epoch, 'epoch': float(epoch), 'eval/miou': miou - 8 + 2 * epoch})
  iou = dict.fromkeys(('background', *known['train'].info.classes), miou)
  result = {'iou': iou, 'miou': miou, 'fp': 1.0, 'fn': 2.0, 'threshold': 0.25}
  result |= {'thresholds': [0.2, 0.25], 'mious': [miou - 5, miou]}
  for split in ('train', 'val'):
    records.write_json(workdir / 'evaluation' / f'priors_{split}.json', result)


def finish_all(order):
  for run in command.plan_of(order, None):
    finish(run.config, run.directory, IOU[run.row.name][run.seed])
