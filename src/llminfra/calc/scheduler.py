"""vLLM's scheduler without a model: which requests are in the next step, and how many tokens of each are processed.

There is no phase of prefill or decode. A sequence has so many known tokens (its prompt, and what it has generated) and so many
of them computed; a step brings the second number closer to the first. Running sequences come first, in order; what is left of
the token budget goes to waiting ones. When a block is missing, a running sequence gives its blocks back and starts over.

The rules are those of vLLM 0.32.0, `v1/core/sched/scheduler.py` and `v1/core/block_pool.py`, and the tests compare every step
with them. Left out: asynchronous scheduling (vLLM's default on a GPU, which plans a step before the last one has ended),
prefix caching in layers with a sliding window, the watermark (off by default), speculative tokens, adapters, images, and caches
that another engine sends.
"""

import heapq

from . import kvblocks, memory, tables

POLICIES = ("fcfs", "priority")
NEVER = 1 << 60


class Sequence:
    """A request on its way: known and computed tokens, those of the step, and times in ns (-1: not yet)."""

    def __init__(self, number: int, request):
        self.number = number
        self.request = request
        self.arrival_ns = request.arrival_ns
        self.tokens = request.prompt
        self.last = request.prompt + request.output  # the known tokens of a finished sequence
        self.computed = self.part = 0
        self.stored = 0  # blocks that others can find
        self.limit = 0  # computed tokens at which its blocks have to be looked at
        self.start_ns = self.first_ns = self.last_ns = self.finish_ns = -1
        self.preemptions = 0
        self.replica = -1


class Scheduler:
    """Who runs next. `settings` are those of `replica.settings`; `pool` is a BlockPool, or None for memory without end."""

    def __init__(self, settings: dict, pool):
        self.pool = pool
        self.max_num_seqs = settings["max_num_seqs"]
        self.max_num_batched_tokens = settings["max_num_batched_tokens"]
        self.chunked_prefill = settings["chunked_prefill"]
        self.caching = pool is not None and settings["prefix_caching"]
        self.reserve = settings["reserve"]
        self.windows = settings["windows"]
        self.priority = settings["policy"] == "priority"
        self.waiting: list = []
        self.running: list = []  # in order of admission
        self.admitted: list = []  # in the last step
        self.preempted: list = []  # in the last step, each with the tokens it lost
        self.prefilling: list = []  # in the last step with more than one token
        self.hit_tokens = self.prompt_tokens = 0
        self._order = 0

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence: the last of its priority, or simply the last."""
        self._order += 1
        urgency = sequence.request.priority if self.priority else 0
        key = (urgency, sequence.arrival_ns, sequence.number) if self.priority else (0, self._order)
        heapq.heappush(self.waiting, (key, sequence))

    def schedule(self, admit: bool = True) -> list:
        """Return the sequences of the next step, each with its `part`: the tokens of it that are processed.

        `admit` False leaves the waiting ones where they are.
        """
        budget = self.max_num_batched_tokens
        running = self.running
        step: list = []
        self.admitted, self.preempted, self.prefilling = [], [], []
        place = 0
        while place < len(running) and budget > 0:
            sequence = running[place]
            part = sequence.tokens - sequence.computed
            if part > budget:
                part = budget
            if sequence.computed + part >= sequence.limit:
                while not self._slots(sequence, sequence.computed + part):
                    victim = self._victim()
                    at = running.index(victim)
                    del running[at]
                    if at < place:  # it is in the step already
                        place -= 1
                        step.remove(victim)
                        budget += victim.part
                        if victim.part > 1:
                            self.prefilling.remove(victim)
                    self._preempt(victim)
                    if victim is sequence:
                        break
                if not sequence.limit:  # it gave its own blocks back
                    break
            sequence.part = part
            step.append(sequence)
            if part > 1:
                self.prefilling.append(sequence)
            budget -= part
            place += 1
        while admit and not self.preempted and self.waiting and len(running) < self.max_num_seqs and budget > 0:
            sequence = self.waiting[0][1]
            found = [] if sequence.computed else self._found(sequence)
            hit = len(found) * self.pool.block_tokens if found else 0
            part = sequence.tokens - sequence.computed - hit
            if part > budget and not self.chunked_prefill:
                break
            part = min(part, budget)
            if not self._room(sequence, found):
                break
            heapq.heappop(self.waiting)
            sequence.computed += hit
            sequence.part = part
            self._slots(sequence, sequence.computed + part, found)
            running.append(sequence)
            self.admitted.append(sequence)
            step.append(sequence)
            if part > 1:
                self.prefilling.append(sequence)
            budget -= part
            self.hit_tokens += hit
            self.prompt_tokens += sequence.tokens
        return step

    def update(self, step: list) -> list:
        """Count the tokens of a step as computed; return the sequences that got a new token."""
        sampled = []
        for sequence in step:
            sequence.computed += sequence.part
            if sequence.computed == sequence.tokens:
                sequence.tokens += 1
                sampled.append(sequence)
        return sampled

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out of the running ones; its blocks stay its own until `free`."""
        self.running.remove(sequence)

    def free(self, sequence: Sequence) -> None:
        """Give a sequence's blocks back."""
        sequence.stored = sequence.limit = 0
        if self.pool is not None:
            for group in range(len(self.windows)):
                self.pool.release((sequence.number, group))

    def _found(self, sequence: Sequence) -> list:
        """Return the blocks that hold the beginning of its tokens; never all, since the last token's logits are needed."""
        if not self.caching:
            return []
        return self.pool.find(self._keys(sequence, 0, (sequence.tokens - 1) // self.pool.block_tokens))

    def _keys(self, sequence: Sequence, first: int, end: int) -> list:
        """Return what the blocks `first` to `end` hold: a group's prefix, or tokens that are the sequence's own."""
        request = sequence.request
        common = min(request.shared, request.prompt) // self.pool.block_tokens if request.group >= 0 else 0
        return [(request.group if i < common else -1 - sequence.number, i) for i in range(first, end)]

    def places(self, request, tokens: int) -> int:
        """Return how many places a request takes when it is admitted with so many known tokens."""
        if self.reserve == "paged":
            return tokens
        return max(tokens, kvblocks.reserved_tokens(self.reserve, tokens, request.prompt + request.output - 1))

    def blocks(self, places: int) -> int:
        """Return the most blocks that a sequence with so many places holds at once, over all groups of layers.

        A layer with a window holds, besides the window, at most what one step adds, and a block that this does not fill.
        """
        total = 0
        for window in self.windows:
            needed = memory.kv_blocks(places, self.pool.block_tokens)
            if window:
                most = memory.kv_blocks(window - 1 + self.max_num_batched_tokens, self.pool.block_tokens) + 1
                needed = min(needed, most)
            total += needed
        return total

    def _room(self, sequence: Sequence, found: list) -> bool:
        """Return whether all its known tokens have a place: one that would have to stop halfway is not let in."""
        if self.pool is None:
            return True
        needed = self.blocks(self.places(sequence.request, sequence.tokens))
        return needed - sum([self.pool.owners[block] > 0 for block in found]) <= self.pool.free()

    def _slots(self, sequence: Sequence, end: int, found: "list | tuple" = ()) -> bool:
        """Give a sequence blocks up to its token `end`, and let others find those that are then full."""
        sequence.limit = NEVER
        if self.pool is None:
            return True
        size = self.pool.block_tokens
        wanted = end if self.reserve == "paged" else self.places(sequence.request, end)
        holders = [(sequence.number, group) for group in range(len(self.windows))]
        for holder, window in zip(holders, self.windows):  # noqa: B905 - MicroPython has no `strict`
            if window:
                passed = max(0, sequence.computed - window + 1) // size
                self.pool.drop(holder, passed)
                sequence.limit = min(sequence.limit, (passed + 1) * size + window)
        if sum([self.pool.needed(holder, wanted, found) for holder in holders]) > self.pool.free():
            return False
        for holder in holders:
            self.pool.take(holder, wanted, found)
        sequence.limit = min(sequence.limit, len(self.pool.tables[holders[0]]) * size + 1)
        if self.caching:
            first, sequence.stored = max(sequence.stored, len(found)), end // size
            self.pool.store(holders[0], first, self._keys(sequence, first, sequence.stored))
            sequence.limit = min(sequence.limit, (sequence.stored + 1) * size)
        return True

    def _victim(self) -> Sequence:
        """Return who gives way: the one admitted last, or with priorities the least urgent, the latest of these."""
        if not self.priority:
            return self.running[-1]
        return max(self.running, key=lambda sequence: (sequence.request.priority, sequence.arrival_ns))

    def _preempt(self, victim: Sequence) -> None:
        """Take a victim's blocks, and put it back in front of the queue with nothing computed."""
        self.free(victim)
        self.preempted.append((victim, victim.computed))
        victim.preemptions += 1
        victim.computed = 0
        self._order += 1
        key = (victim.request.priority, victim.arrival_ns, victim.number) if self.priority else (0, -self._order)
        heapq.heappush(self.waiting, (key, victim))


def checked(settings: dict) -> dict:
    """Return a scheduler's settings if they can be, or raise ValueError for the first that cannot."""
    for name in ("max_num_seqs", "max_num_batched_tokens", "block_tokens"):
        tables.whole(name, settings[name])
    if settings["blocks"] is not None:
        tables.whole("blocks", settings["blocks"])
    if settings["policy"] not in POLICIES:
        raise tables.unknown("policy", str(settings["policy"]), list(POLICIES))
    windows = settings["windows"]
    if not isinstance(windows, (tuple, list)) or not windows:
        raise ValueError(f"windows must be a tuple with a number for each group of layers, not {windows!r}")
    for window in windows:
        tables.not_negative("a window", window)
    if tuple(windows) != (0,) and (settings["prefix_caching"] or settings["reserve"] != "paged"):
        raise ValueError("windows need paged memory without prefix_caching: set windows to (0,)")
    if settings["reserve"] != "paged":
        kvblocks.reserved_tokens(settings["reserve"], 1, 1)
        if settings["prefix_caching"]:
            raise ValueError("prefix_caching needs paged memory: set reserve to 'paged'")
    return settings
