"""Each chapter's run fails when a claim of it is false: its first checks, turned round; all of them in `make test-slow`."""

import pytest
from checks import mutation

from llminfra.notebook.chapter import with_code

pytestmark = pytest.mark.engine

SAMPLE = 4  # the checks of the first minute of a chapter


@pytest.mark.parametrize("chapter", with_code(), ids=lambda path: path.stem)
# Slow: it runs a chapter to its end a second time.
@pytest.mark.parametrize("sample", [SAMPLE, pytest.param(None, marks=pytest.mark.slow, id="all")])
def test_a_run_with_a_claim_turned_round_fails_there(chapter, sample, hold, covered):
    chosen = mutation.mutants(chapter, sample)
    hold(mutation.survivors(chapter, chosen))
    covered(
        "mutation", f"{chapter.stem}: {len(chosen)} of {len(mutation.mutants(chapter))} checking cells turned round"
    )
