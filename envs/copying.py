"""What a copy of an environment is: another one, made the same way.

Running simulations live in C++ memory and threads, which nothing can pickle. A copied or unpickled environment is
therefore made anew with the same arguments (gymnasium's ``EzPickle`` means the same) and begins with its first `reset`;
where an episode stands is what ``get_state`` and ``set_state`` are for.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Self

__all__ = ["Remade"]


class Remade:
    """A base class, to be named first: ``pickle`` and ``copy`` call the constructor again with its arguments."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        made._made_with = (args, kwargs)
        return made

    _made_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __reduce__(self) -> tuple[Any, ...]:
        args, kwargs = self._made_with
        return partial(type(self), **kwargs), args, {"spec": getattr(self, "spec", None)}
