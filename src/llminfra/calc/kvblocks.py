"""A pool of KV-cache blocks: who holds which, what is shared, what is lost at the ends (PagedAttention 2309.06180)."""

import heapq

from . import memory, tables


class BlockPool:
    """So many blocks of so many tokens each, numbered from 0.

    `tables` maps a request to its blocks in the order of its tokens, `tokens` to how many it has stored. A block may be in
    several tables where prompts begin alike; `owners` counts them. Blocks without an owner are free; those that still
    hold a known prefix are found again until their place is needed, the longest unused first.
    """

    def __init__(self, blocks: int, block_tokens: int = 16):
        self.blocks = tables.whole("blocks", blocks)
        self.block_tokens = tables.whole("block_tokens", block_tokens)
        self.tables: dict = {}
        self.tokens: dict = {}
        self.owners = [0] * blocks
        self.used = 0
        self._blank = list(range(blocks - 1, -1, -1))
        self._kept: list = []  # (when it lost its last owner, block) of free blocks that hold a prefix
        self._since = [-1] * blocks
        self._key: list = [None] * blocks
        self._found: dict = {}
        self._clock = 0

    def free(self) -> int:
        """Return how many blocks nobody holds."""
        return self.blocks - self.used

    def needed(self, request, tokens: int) -> int:
        """Return how many more blocks `request` needs to store `tokens` more."""
        held = len(self.tables.get(request, ()))
        return max(0, memory.kv_blocks(self.tokens.get(request, 0) + tokens, self.block_tokens) - held)

    def append(self, request, tokens: int) -> bool:
        """Store `tokens` more of a request; False, and nothing changed, if there are not enough free blocks."""
        tables.not_negative("tokens", tokens)
        new = self.needed(request, tokens)
        if new > self.blocks - self.used:
            return False
        held = self.tables.setdefault(request, [])
        for _ in range(new):
            held.append(self._take())
        self.tokens[request] = self.tokens.get(request, 0) + tokens
        return True

    def _take(self) -> int:
        if self._blank:
            block = self._blank.pop()
        else:
            while True:
                since, block = heapq.heappop(self._kept)
                if self._since[block] == since and not self.owners[block]:
                    break
            del self._found[self._key[block]]
            self._key[block] = None
        self.owners[block] = 1
        self.used += 1
        return block

    def release(self, request) -> None:
        """Take all blocks from a request; the last ones lose their content first. Raises ValueError if it has none."""
        if request not in self.tables:
            raise ValueError(f"request {request!r} holds no blocks")
        del self.tokens[request]
        for block in reversed(self.tables.pop(request)):
            self.owners[block] -= 1
            if not self.owners[block]:
                self.used -= 1
                if self._key[block] is None:
                    self._blank.append(block)
                else:
                    self._clock += 1
                    self._since[block] = self._clock
                    heapq.heappush(self._kept, (self._clock, block))

    def cached(self, prefix, tokens: int) -> list:
        """Return the blocks that hold the beginning of a prefix, whole blocks among its first `tokens` only."""
        found: list = []
        for i in range(tokens // self.block_tokens):
            block = self._found.get((prefix, i))
            if block is None:
                break
            found.append(block)
        return found

    def share(self, request, prefix, tokens: int) -> int:
        """Give a request that holds nothing the cached blocks of its prefix; return how many tokens they hold."""
        if request in self.tables:
            raise ValueError(f"request {request!r} already holds blocks")
        found = self.cached(prefix, tokens)
        for block in found:
            if not self.owners[block]:
                self.used += 1
            self.owners[block] += 1
        self.tables[request] = found
        self.tokens[request] = len(found) * self.block_tokens
        return len(found) * self.block_tokens

    def remember(self, request, prefix, tokens: int) -> None:
        """Make the whole blocks of a request's first `tokens` findable as those of a prefix."""
        held = self.tables[request]
        for i in range(min(tokens, self.tokens[request]) // self.block_tokens):
            if (prefix, i) not in self._found and self._key[held[i]] is None:
                self._found[(prefix, i)] = held[i]
                self._key[held[i]] = (prefix, i)

    def waste(self) -> float:
        """Return the share of the held places that hold no token, 0 to 1; a shared block counts once."""
        if not self.used:
            return 0.0
        unfilled = sum(len(self.tables[r]) * self.block_tokens - self.tokens[r] for r in self.tables)
        return unfilled / (self.used * self.block_tokens)


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

    `requests` are records of `workload.Request`; each counts alike, at the mean over its life, from its prompt to its
    last token. Sharing of prefixes is left out.
    """
    held = stored = 0.0
    for request in requests:
        total = request.prompt + request.output
        # What is not paged is set aside once and for all.
        ages = range(request.prompt, total + 1) if policy == "paged" else (total,)
        held += sum(reserved_tokens(policy, tokens, total, block_tokens) for tokens in ages) / len(ages)
        stored += request.prompt + request.output / 2
    return 1 - stored / held
