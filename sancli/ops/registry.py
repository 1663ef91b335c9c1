"""How an operator becomes known to torch: its schema, its plain implementation, and its shapes.

A faster implementation for one device is one more line, `implement(name, function, "CPU")`: everything else,
autograd included, stays as it is.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch

library = torch.library.Library("san", "DEF")
_plain: dict[str, Callable[..., Any]] = {}
_implemented: dict[str, dict[str, Callable[..., Any]]] = {}


class UnavailableError(Exception):
    """An implementation finds at work that it cannot do it, and says why: plain PyTorch does it."""


def register(schema: str, plain: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Defines san::NAME, implemented by `plain` on every device; `fake` gives the shapes alone."""
    name = schema.partition("(")[0]
    library.define(schema)
    library.impl(name, by_itself(plain), "CompositeExplicitAutograd")
    _plain[name] = plain
    torch.library.register_fake(f"san::{name}", fake, lib=library)


def implement(name: str, function: Callable[..., Any], key: str) -> None:
    """Makes `function` run san::NAME on the devices of torch's dispatch key `key`: CPU, CUDA."""

    @functools.wraps(function)
    def or_plain(*args: Any) -> Any:
        try:
            return function(*args)
        except UnavailableError:
            return _plain[name](*args)

    library.impl(name, by_itself(or_plain), key)
    _implemented.setdefault(key, {})[name] = function


def implemented(key: str) -> dict[str, Callable[..., Any]]:
    """The implementations of their own that operators have for a dispatch key."""
    return dict(sorted(_implemented.get(key, {}).items()))


def definition(name: str) -> Callable[..., Any]:
    """The implementation that all others are held to."""
    return _plain[name]


def by_itself(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keeps autocast and autograd out of an operator: types are its own choice, backward is written out."""

    @functools.wraps(function)
    def wrapped(first: torch.Tensor, *args: Any) -> Any:
        if not (torch.is_grad_enabled() or torch.is_autocast_enabled(first.device.type)):
            return function(first, *args)  # nothing to keep out: entering both costs 20 us
        with torch.no_grad(), torch.autocast(first.device.type, enabled=False):
            return function(first, *args)

    return wrapped


def differentiable(function: type[torch.autograd.Function], operator: Any, *args: Any) -> Any:
    """Calls `operator` through `function`, which is its autograd, where a gradient can be wanted."""
    return function.apply(*args) if torch.is_grad_enabled() else operator(*args)


def first_derivative_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Refuses a derivative of a derivative: backward is an operator, which autograd cannot see into.

    torch's own `once_differentiable` lets through those that reach the saved tensors alone,
    and they would be 0.
    """

    @functools.wraps(backward)
    def wrapped(ctx: Any, *grads: torch.Tensor) -> Any:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError("the san operators have no second derivative: leave out create_graph=True")
        return backward(ctx, *grads)

    return wrapped
