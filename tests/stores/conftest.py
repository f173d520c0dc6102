"""A home for each engine, and new collections there."""

import contextlib

import pytest
from samples import LOCAL
from stand_in import stand_in

from llminfra.stores import open_store


class Homes(dict):
    """A URL for each engine, made when it is first asked for; a store that stays open keeps its server up for all tests."""

    def __init__(self, stack, folder):
        self.stack, self.folder = stack, folder

    def __missing__(self, engine):
        self[engine] = f"{engine}:"
        if engine == "qdrant":
            self[engine] = self.stack.enter_context(stand_in())[1]
        elif engine in LOCAL:
            self[engine] += str(self.folder(engine) / "home")
            self.stack.enter_context(open_store(self[engine], "keeper", 2))
        return self[engine]


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        yield Homes(stack, tmp_path_factory.mktemp)


COUNTER = iter(range(10**6))


@pytest.fixture
def fresh(homes):
    """Make a new collection of an engine."""
    with contextlib.ExitStack() as stack:
        yield lambda engine, dimensions=8, **given: stack.enter_context(
            open_store(homes[engine], f"fresh_{next(COUNTER)}", dimensions, **given)
        )
