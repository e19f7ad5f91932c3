"""What the configs share: reading their argument, the defaults, and which networks train."""

import difflib

from pnoc_jax import config as config_lib
from pnoc_jax.engine import settings
from pnoc_jax.errors import UserError


def parse(argument: str | None, known: dict[str, str]) -> dict[str, str]:
  """Reads a config's argument, words separated by commas: `configs/x.py:smoke`.

  Args:
    argument: what follows the colon, or None.
    known: the words that the config knows, and what each means; a word that ends with `=` takes a
      value: `configs/x.py:paper,backbone=resnest101`.

  Returns:
    The words given and their values; that of a word without one is empty.

  Raises:
    UserError: a word is unknown, or lacks its value.
  """
  words = {}
  for text in (argument or '').split(','):
    word, equals, value = text.strip().partition('=')
    if f'{word}{equals}' not in known and word:
      raise UserError(_unknown(text.strip(), known))
    if equals and not value:
      raise UserError(f'{text.strip()} lacks its value: {known[word + equals]}')
    if word:
      words[word] = value
  return words


def _unknown(text: str, known: dict[str, str]) -> str:
  near = difflib.get_close_matches(text, known, 1)
  hint = f'; did you mean {near[0]}?' if near else '.'
  meanings = '; '.join(f'{word}: {meaning}' for word, meaning in known.items())
  return f'the config does not know {text}{hint} It knows {meanings}'


def base_config(name: str) -> config_lib.PipelineConfig:
  """The defaults of every run: the paper's text where it is explicit."""
  config = config_lib.PipelineConfig(name=name)
  config.generator.optim.accumulate = 2
  return config


def networks(config: config_lib.PipelineConfig) -> tuple[settings.TrainingConfig, ...]:
  """The trainings that share a backbone, in their order: all but that of PoolNet."""
  return (
    config.classifier,
    config.generator,
    config.c2am,
    config.affinity,
    config.segmentation,
  )
