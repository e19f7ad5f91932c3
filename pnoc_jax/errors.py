"""The error that a person caused and can mend. It imports nothing, so data workers can raise it."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
  """The user's input is at fault: what is wrong, where it is, and what to do about it.

  A launcher prints the message alone, without a traceback.
  """


def did_you_mean(name: str, known: Iterable[str]) -> str:
  """`; did you mean NAME?` of the known name that is nearest, or nothing where none is near."""
  near = difflib.get_close_matches(name, list(known), 1)
  return f'; did you mean {near[0]}?' if near else ''
