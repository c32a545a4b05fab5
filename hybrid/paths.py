"""Dotted names for the leaves of a parameter tree: what users write, what errors print."""

from collections.abc import Callable
from typing import Any

import jax

Tree = Any


def path_name(path: tuple[Any, ...]) -> str:
    """Returns the dotted name of a key path: `(DictKey('car'), DictKey('r'))` -> `car.r`."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def leaf_names(tree: Tree) -> list[str]:
    """Returns the dotted name of every leaf, in flattening order."""
    return [path_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def named_leaves(tree: Tree) -> dict[str, Any]:
    """Returns `{dotted name: leaf}` in flattening order."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def map_named(function: Callable[[str, Any], Any], tree: Tree) -> Tree:
    """Maps `function(name, leaf)` over a tree."""
    return jax.tree_util.tree_map_with_path(lambda path, x: function(path_name(path), x), tree)
