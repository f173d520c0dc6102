"""A program that runs beside this process and never outlives it."""

from .child import Child, free_port, last_words

__all__ = ["Child", "free_port", "last_words"]
