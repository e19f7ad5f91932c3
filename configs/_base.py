"""What the configs share: reading their argument, and the seeds of a sweep."""

from pnoc_jax import config as config_lib
from pnoc_jax.errors import UserError


def parse(argument: str | None, known: dict[str, str]) -> set[str]:
  """Reads a config's argument, words separated by commas: `configs/x.py:smoke`.

  Args:
    argument: what follows the colon, or None.
    known: the words that the config knows, and what each means.

  Returns:
    The words given.

  Raises:
    UserError: a word is unknown.
  """
  words = {word for word in (argument or '').split(',') if word}
  if unknown := words - set(known):
    meanings = '; '.join(f'{word}: {meaning}' for word, meaning in known.items())
    raise UserError(f'the config does not know {", ".join(sorted(unknown))}. It knows {meanings}')
  return words


def base_config(name: str) -> config_lib.PipelineConfig:
  """The defaults of every run: the paper's text where it is explicit."""
  config = config_lib.PipelineConfig(name=name)
  config.generator.optim.accumulate = 2
  return config
