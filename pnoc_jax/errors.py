"""The error that a person caused and can mend. It imports nothing, so data workers can raise it."""


class UserError(ValueError):
  """The user's input is at fault: what is wrong, where it is, and what to do about it.

  A launcher prints the message alone, without a traceback.
  """
