# mujoco's types live in its C++ extension, which carries no type information: all of it is Any.
from typing import Any

def __getattr__(name: str) -> Any: ...
