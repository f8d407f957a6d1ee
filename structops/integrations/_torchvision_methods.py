"""Methods that take the place of torchvision's in its classes: functions of a module are found by name, these are not.

A subclass with a method of its own keeps it. While a method is replaced, the class has torchvision's under another
name, which ours calls for whatever it does not take, and which TorchScript compiles in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

#: class, torchvision's method, ours of the same name
Method = tuple[type, Callable[..., Any], Callable[..., Any]]

ORIGINAL = "_torchvision_"


class Own:
    """Whether an object has a class's methods as they are now, before any patch: not a subclass's, nor anybody's who
    has changed them."""

    def __init__(self, owner: type, *names: str) -> None:
        self._owner, self._methods = owner, {name: vars(owner)[name] for name in names}

    def __call__(self, instance: Any) -> bool:
        return type(instance) is self._owner and all(
            vars(self._owner)[name] is method and name not in vars(instance) for name, method in self._methods.items()
        )


def _renamed(function: Any, name: str) -> Callable[..., Any]:
    """The same function; TorchScript goes by its own name, and refuses two methods of one."""
    renamed = FunctionType(function.__code__, function.__globals__, name, function.__defaults__, function.__closure__)
    renamed.__annotations__ = function.__annotations__
    return renamed


def replace(methods: Iterable[Method]) -> None:
    for owner, theirs, ours in methods:
        name = ORIGINAL + ours.__name__
        setattr(owner, name, _renamed(theirs, name))
        setattr(owner, ours.__name__, ours)


def restore(methods: Iterable[Method]) -> None:
    for owner, theirs, ours in methods:
        if vars(owner).get(ours.__name__) is ours:
            setattr(owner, ours.__name__, theirs)
            delattr(owner, ORIGINAL + ours.__name__)
