"""What the command line reports as one sentence instead of a traceback.

Every room has its own error next to the code that raises it (``GoalError`` in ``envs.goals`` and so on); here
are only those that belong to no room.
"""

from __future__ import annotations


class UsageError(ValueError):
    """A command was called in a way it does not understand; the sentence says how to call it. Exit code 2."""


class ConfigError(UsageError):
    """A configuration key or value is not one of the valid ones; the sentence names them. Exit code 2."""


class MissingRunError(ValueError):
    """A run directory was asked for that does not exist; the sentence names those that do. Exit code 1."""
