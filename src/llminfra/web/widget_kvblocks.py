"""A pool of cache blocks: which request holds which, handed out as they fill or set aside."""

from ..calc import kvblocks, rng
from . import form, markup, svg

LETTERS = "ABCDEFGHIJKLMNOPQRST"
"""The requests of the pool's widget."""
COLOURS = 6
ACROSS = 16
"""Blocks in a row of the drawing."""


def fields() -> list:
    """Return the fields of the pool of blocks."""
    return [
        form.slider("step", "Step", "70", 0, 240, "each decodes one token of every running request"),
        form.number("blocks", "Blocks in the pool", "48", 8, 96),
        form.select("block_tokens", "Tokens in a block", [(size, size) for size in ("1", "8", "16", "32")], "16"),
        form.number("prompt", "Longest prompt", "80", 1, 400, 1, "tokens; each request draws its own length"),
        form.number("output", "Longest output", "120", 1, 400, 1, "tokens; nobody knows the length before"),
        form.number("gap", "Steps between arrivals", "5", 1, 50),
    ]


def result(values: dict) -> str:
    """Return who holds which block at a step: handed out as they fill, and set aside for the longest request."""
    size, longest = int(values["block_tokens"]), values["prompt"] + values["output"]
    if longest > values["blocks"] * size:
        raise ValueError(
            f"a request of up to {longest} tokens does not fit into {values['blocks']} blocks of {size}: "
            "take more blocks or shorter requests"
        )
    paged, reserved = _replay(values, size, 0), _replay(values, size, longest)
    rows = [_row("As they fill", paged), _row(f"{markup.fixed(longest)} tokens each", reserved)]
    said = (
        f"At step {values['step']} blocks handed out as they fill serve {rows[0][1]} requests at once and "
        f"{rows[0][5]} of their places are empty; setting {markup.fixed(longest)} tokens aside for each serves "
        f"{rows[1][1]}, with {rows[1][5]} empty."
    )
    down = -(-values["blocks"] // ACROSS)
    parts = []
    for top, words, state in (
        (30, "Blocks handed out as they fill", paged),
        (30 * down + 84, f"{markup.fixed(longest)} tokens set aside for each", reserved),
    ):
        parts += [svg.words(0, top - 12, words, "start", "label"), _grid(state["pool"], state["stored"], top)]
    title = f"Who holds which of {values['blocks']} blocks at step {values['step']}"
    told = [f"{name}: {_numbers(paged['pool'].tables[name])}" for name in sorted(paged["pool"].tables)]
    heads = ["Blocks", "Running", "Waiting", "Finished", "Preempted", "Empty places"]
    return "".join(
        [
            markup.summary(said),
            svg.drawing(60 * down + 92, title, f"As they fill, {'; '.join(told) or 'nobody holds any'}.", parts),
            markup.legend(
                [("own0", "tokens of request A, and so on"), ("own0 unfilled", "held, but empty"), ("nobody", "free")]
            ),
            markup.table(title, heads, rows),
        ]
    )


def _numbers(blocks: list) -> str:
    return "blocks " + ", ".join([str(block) for block in blocks])


def _row(name: str, state: dict) -> list:
    held = state["pool"].used * state["pool"].block_tokens
    stored = sum(state["stored"].values())
    empty = markup.fixed(100 * (1 - stored / held) if held else 0) + " %"
    counts = [len(state["pool"].tables), state["waiting"], state["finished"], state["preempted"]]
    return [name] + [markup.fixed(count) for count in counts] + [empty]


def _requests(values: dict) -> list:
    """Return [name, prompt, output, tokens stored so far] of each request, drawn from the same seed always."""
    draw = rng.Random(3)
    return [[name, 1 + draw.below(values["prompt"]), 1 + draw.below(values["output"]), 0] for name in LETTERS]


def _replay(values: dict, size: int, reserve: int) -> dict:
    """Return pool, stored (tokens of each request that runs), waiting, finished and preempted, after the last step.

    `reserve` is how many tokens a request takes at its start; 0 lets it take blocks as they fill.
    """
    pool = kvblocks.BlockPool(values["blocks"], size)
    coming = _requests(values)
    waiting: list = []
    running: list = []
    finished = preempted = 0
    for step in range(values["step"] + 1):
        if coming and step % values["gap"] == 0:
            waiting.append(coming.pop(0))
        for request in list(running):
            if request not in running:
                continue  # it has just given way
            while not reserve and not pool.take(request[0], request[3] + 1):
                youngest = running.pop()
                pool.release(youngest[0])
                waiting.insert(0, youngest)
                preempted += 1
                if youngest is request:
                    break
            if request in running:
                request[3] += 1
                if request[3] == request[1] + request[2]:
                    pool.release(request[0])
                    running.remove(request)
                    finished += 1
        while waiting:
            first = waiting[0]
            first[3] = max(first[3], first[1])
            if not pool.take(first[0], reserve or first[3]):
                break
            running.append(waiting.pop(0))
    stored = {request[0]: request[3] for request in running}
    return {
        "pool": pool,
        "stored": stored,
        "waiting": len(waiting),
        "finished": finished,
        "preempted": preempted,
    }


def _grid(pool: kvblocks.BlockPool, stored: dict, top: float) -> str:
    """Draw each block as a cell, filled as far as it holds tokens, with the letter of its owner."""
    wide, high = svg.WIDTH / ACROSS, 30
    owner = {}
    for name in pool.tables:
        for place, block in enumerate(pool.tables[name]):
            filled = min(pool.block_tokens, max(0, stored[name] - place * pool.block_tokens))
            owner[block] = (name, filled / pool.block_tokens)
    drawn, letters, free = [], [], []
    for block in range(pool.blocks):
        x, y = block % ACROSS * wide, top + block // ACROSS * high
        if block not in owner:
            free.append((x + 1, y + 1, wide - 2, high - 2))
            continue
        name, share = owner[block]
        kind = f"own{LETTERS.index(name) % COLOURS}"
        drawn.append(svg.boxes([(x + 1, y + 1, wide - 2, high - 2)], kind + " unfilled"))
        if share:
            drawn.append(svg.boxes([(x + 1, y + 1, (wide - 2) * share, high - 2)], kind))
        letters.append(svg.words(x + wide / 2, y + high / 2 + 6, name, "middle", "label"))
    return svg.boxes(free, "nobody") + "".join(drawn) + "".join(letters)
