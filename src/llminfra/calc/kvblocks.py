"""A pool of KV-cache blocks: who holds which, what is shared, what is lost at the ends (PagedAttention 2309.06180)."""

from . import memory, tables


class BlockPool:
    """So many blocks of so many tokens each, numbered from 0, as vLLM keeps them (`v1/core/block_pool.py`).

    `tables` maps a request to its blocks in the order of its tokens. A block may be in several tables where prompts begin alike;
    `owners` counts them. Free blocks are in a queue. A block with known content is found again until it comes to the queue's
    head and is handed out; those without are handed out first.
    """

    def __init__(self, blocks: int, block_tokens: int = 16):
        self.blocks = tables.whole("blocks", blocks)
        self.block_tokens = tables.whole("block_tokens", block_tokens)
        self.tables: dict = {}
        self.owners = [0] * blocks
        self.used = 0
        # The queue of free blocks: each one's neighbours, in a ring that begins and ends at the place `blocks`.
        self._next = list(range(1, blocks + 1)) + [0]
        self._before = [blocks] + list(range(blocks))
        self._content: list = [None] * blocks
        self._holding: dict = {}  # content to the blocks that hold it, the oldest first

    def free(self) -> int:
        """Return how many blocks nobody holds."""
        return self.blocks - self.used

    def needed(self, request, tokens: int, found: "list | tuple" = ()) -> int:
        """Return how many free blocks it takes to give a request places for `tokens` in all.

        `found` are blocks that hold its first tokens (of `find`), for one that holds nothing yet; those that nobody owns count.
        """
        held = len(self.tables.get(request, ())) + len(found)
        missing = max(0, memory.kv_blocks(tokens, self.block_tokens) - held)
        return missing + sum([not self.owners[block] for block in found])

    def take(self, request, tokens: int, found: "list | tuple" = ()) -> bool:
        """Give a request places for `tokens` in all, first in the blocks `found`; False, and nothing changed, if too few are free.

        Raises ValueError for `found` blocks where the request holds some already.
        """
        tables.not_negative("tokens", tokens)
        if found and request in self.tables:
            raise ValueError(f"request {request!r} already holds blocks")
        if self.needed(request, tokens, found) > self.blocks - self.used:
            return False
        held = self.tables.setdefault(request, [])
        for block in found:
            if not self.owners[block]:
                self._unlink(block)
            self.owners[block] += 1
            held.append(block)
        while len(held) * self.block_tokens < tokens:
            held.append(self._first())
        return True

    def release(self, request) -> None:
        """Take all blocks from a request; the last ones are handed out first. Raises ValueError if it has none."""
        if request not in self.tables:
            raise ValueError(f"request {request!r} holds no blocks")
        held = self.tables.pop(request)
        self._free(held, len(held))

    def drop(self, request, count: int) -> None:
        """Take the first `count` blocks from a request, which has no use for them any more; their places stay in its table, None."""
        self._free(self.tables.get(request, []), min(count, len(self.tables.get(request, []))))

    def _free(self, held: list, count: int) -> None:
        """Free the first `count` of these blocks, from the last to the first, up to one that was dropped before."""
        front = self.blocks
        for i in range(count - 1, -1, -1):
            block = held[i]
            if block is None:
                break
            held[i] = None
            self.owners[block] -= 1
            if not self.owners[block]:
                if self._content[block] is None:
                    self._link(block, front)
                    front = block
                else:
                    self._link(block, self._before[self.blocks])

    def find(self, contents: list) -> list:
        """Return the blocks that hold the first of these contents, up to the first one that none holds."""
        found = []
        for content in contents:
            holding = self._holding.get(content)
            if not holding:
                break
            found.append(holding[0])
        return found

    def store(self, request, first: int, contents: list) -> None:
        """Say what a request's blocks from its `first` on hold, so that others find them."""
        held = self.tables[request]
        for i in range(len(contents)):
            self._content[held[first + i]] = contents[i]
            self._holding.setdefault(contents[i], []).append(held[first + i])

    def _first(self) -> int:
        """Take the head of the queue; what it held is forgotten."""
        block = self._next[self.blocks]
        self._unlink(block)
        self.owners[block] = 1
        content = self._content[block]
        if content is not None:
            self._holding[content].remove(block)
            if not self._holding[content]:
                del self._holding[content]
            self._content[block] = None
        return block

    def _unlink(self, block: int) -> None:
        before, after = self._before[block], self._next[block]
        self._next[before], self._before[after] = after, before
        self.used += 1

    def _link(self, block: int, before: int) -> None:
        after = self._next[before]
        self._next[before] = self._before[after] = block
        self._before[block], self._next[block] = before, after
        self.used -= 1


def reserved_tokens(policy: "int | str", tokens: int, total: int, block_tokens: int = 16) -> int:
    """Return how many places are set aside for a request that has stored `tokens` and will store `total`.

    `policy`: "paged" takes blocks as they fill; "power of two" sets aside the power of two that holds the total; a
    number sets aside that many, or the total if that is more.
    """
    if policy == "paged":
        return memory.kv_blocks(tokens, block_tokens) * block_tokens
    if policy == "power of two":
        size = 1
        while size < total:
            size *= 2
        return size
    if isinstance(policy, str):
        raise tables.unknown("policy", policy, ["paged", "power of two"])
    return max(tables.whole("policy", policy), total)


def wasted_share(requests: list, policy: "int | str", block_tokens: int = 16) -> float:
    """Return the share of set-aside places that stay empty, over the lives of requests while they are decoded.

    `requests` are records of `workload.Request`. Every step of every request counts alike, from its prompt to its last token,
    as in an engine that is looked at again and again. Sharing of prefixes is left out.
    """
    held = stored = 0.0
    for request in requests:
        total = request.prompt + request.output
        steps = request.output + 1
        if policy == "paged":
            held += sum(
                [reserved_tokens(policy, tokens, total, block_tokens) for tokens in range(request.prompt, total + 1)]
            )
        else:  # set aside once and for all
            held += steps * reserved_tokens(policy, total, total, block_tokens)
        stored += steps * (request.prompt + request.output / 2)
    return 1 - stored / held
