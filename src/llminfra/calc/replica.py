"""One simulated engine: which requests are in the next step, how long it takes, who gets a token of it.

The rules are vLLM's: requests that decode come first, one token each; what is left of the token budget goes to prompts,
cut where they do not fit; a request is admitted when its whole prompt has blocks; when none is left for a token, the
request that came last gives its blocks back and is computed again.
"""

import heapq

from . import kvblocks, tables


class Sequence:
    """A request on its way: times in ns (-1: not yet), tokens in the cache, tokens made."""

    def __init__(self, number: int, request):
        self.number = number
        self.request = request
        self.computed = 0
        self.target = request.prompt
        self.made = 0
        self.since = -1  # the replica's step count when it began to decode; -1: it does not
        self.end = -1
        self.start_ns = self.first_ns = self.last_ns = self.finish_ns = -1
        self.preemptions = 0
        self.replica = -1
        self.key = (request.priority, request.arrival_ns, number)


def _pool(settings: dict):
    return None if settings["blocks"] is None else kvblocks.BlockPool(settings["blocks"], settings["block_tokens"])


class Replica:
    """An engine's scheduler and cache. `settings` are those of `simulator.simulate`; `role`: both, prefill or decode."""

    def __init__(self, number: int, step_s, settings: dict, role: str = "both"):
        self.number = number
        self.role = role
        self.settings = settings
        self.step_s = step_s
        self.static = settings["batching"] != "continuous"
        self.paged = settings["reserve"] == "paged"
        self.pool = _pool(settings)
        self.waiting: list = []
        self.running: list = []  # in order of admission
        self.prefilling: list = []
        self.chunks: list = []
        self.ended: list = []  # of a static batch: done, but holding their places until all are
        self.ends: list = []
        self.growing: list = [[] for _ in range(settings["block_tokens"])]
        self.decoding = self.context = self.filled = self.steps = 0
        self.busy = False
        self.begun_ns = self.busy_ns = self.batch_ns = 0
        self.outstanding = 0  # tokens still to process of all that is here, for the router
        self.gaps: list = []
        self.preemptions = self.recomputed = self.hit_tokens = self.prompt_tokens = self.largest_step_ns = 0
        self.held_ns = self.waste_ns = 0.0

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        heapq.heappush(self.waiting, (sequence.key, sequence))
        sequence.replica = self.number
        self.outstanding += self._weight(sequence)

    def _weight(self, sequence: Sequence) -> int:
        return sequence.request.prompt + sequence.request.output

    def fits(self, request) -> bool:
        """Return whether the request could ever run here alone."""
        return (
            self.pool is None or -(-self._places(request, request.prompt) // self.pool.block_tokens) <= self.pool.blocks
        )

    def _places(self, request, tokens: int) -> int:
        """Return how many places are set aside for a request with so many tokens; at most what it writes at the end."""
        total = request.prompt + request.output - 1
        if self.paged:
            return total
        return kvblocks.reserved_tokens(self.settings["reserve"], tokens, total)

    # What a step does.

    def begin(self, now: int, flush: bool = False) -> "int | None":
        """Start a step at `now` if there is work; return when it ends, or None. `flush`: take an incomplete batch."""
        preempted = self._grow(now) if self.paged and self.pool is not None else False
        budget = self.settings["max_num_batched_tokens"] - self.decoding
        chunks = self.chunks = []
        for sequence in self.prefilling:
            if budget <= 0:
                break
            part = min(sequence.target - sequence.computed, budget)
            chunks.append((sequence, part))
            budget -= part
        if not preempted and (not self.static or self._ready(now, flush)):
            self._admit(now, budget, chunks)
        if not self.decoding and not chunks:
            return None
        tokens = self.decoding
        samples = self.decoding + len(self.ended)
        pairs = cached = self.context + self.decoding
        for sequence, part in chunks:
            tokens += part
            pairs += part * sequence.computed + part * (part + 1) // 2
            cached += sequence.computed + part
            if sequence.computed + part == sequence.target:
                samples += 1
        seconds = self.step_s(tokens + len(self.ended), samples, pairs, cached)
        took = max(1, int(seconds * 1e9 + 0.5))
        self.begun_ns = now
        self.busy_ns += took
        self.batch_ns += took * (self.decoding + len(chunks))
        self.largest_step_ns = max(self.largest_step_ns, took)
        if self.pool is not None and self.pool.used:
            self.held_ns += took * self.pool.used
            self.waste_ns += took * (self.pool.used - self.filled / self.pool.block_tokens)
        self.busy = True
        return now + took

    def _ready(self, now: int, flush: bool) -> bool:
        if self.running or not self.waiting:
            return False
        oldest = self.waiting[0][1].key[1]
        waited = self.settings["batching"] == "dynamic" and now - oldest >= self.settings["max_wait_ns"]
        return flush or waited or len(self.waiting) >= self.settings["max_num_seqs"]

    def _grow(self, now: int) -> bool:
        preempted = False
        pool = self.pool
        for sequence in list(self.growing[self.steps % pool.block_tokens]):
            while sequence.since >= 0 and not pool.append(sequence.number, pool.block_tokens):
                preempted = True
                self._preempt(max(self.running, key=lambda other: other.key), now)
        return preempted

    def _preempt(self, victim: Sequence, now: int) -> None:
        lost = victim.computed
        if victim.since >= 0:
            lost = self._leave(victim)
            victim.last_ns = now
        else:
            self.prefilling.remove(victim)
            self.filled -= victim.computed
        self.running.remove(victim)
        self.pool.release(victim.number)
        self.recomputed += lost
        self.preemptions += 1
        victim.preemptions += 1
        victim.computed = 0
        victim.target = victim.request.prompt + victim.made
        heapq.heappush(self.waiting, (victim.key, victim))

    def _admit(self, now: int, budget: int, chunks: list) -> None:
        whole = self.static or not self.settings["chunked_prefill"]
        while self.waiting and len(self.running) + len(self.ended) < self.settings["max_num_seqs"]:
            sequence = self.waiting[0][1]
            if budget <= 0 and not self.static:
                break
            hit = self._allocate(sequence)
            if hit < 0:
                break
            left = sequence.target - max(hit, sequence.computed)
            if whole and left > budget and chunks and not self.static:
                if self.pool is not None:
                    self.pool.release(sequence.number)
                break
            heapq.heappop(self.waiting)
            sequence.computed = max(hit, sequence.computed)
            self.filled += sequence.computed
            self.hit_tokens += hit
            self.prompt_tokens += sequence.target
            self.running.append(sequence)
            if sequence.start_ns < 0:
                sequence.start_ns = now
            if not left:  # its cache came from another replica
                self._join(sequence)
                continue
            part = left if whole else min(left, budget)
            budget -= part
            self.prefilling.append(sequence)
            chunks.append((sequence, part))

    def _allocate(self, sequence: Sequence) -> int:
        """Give a sequence the blocks it starts with; return how many tokens of them were cached, or -1 if none is free."""
        pool, request = self.pool, sequence.request
        if pool is None:
            return 0
        hit = 0
        if self.settings["prefix_caching"] and request.group >= 0 and not sequence.computed:
            # The last token is always computed: its logits are needed.
            hit = pool.share(sequence.number, request.group, min(request.shared, sequence.target - 1))
        places = sequence.target + (sequence.computed == sequence.target)
        if not self.paged:
            places = max(places, self._places(request, sequence.target))
        if pool.append(sequence.number, -(-(places - hit) // pool.block_tokens) * pool.block_tokens):
            return hit
        if sequence.number in pool.tables:
            pool.release(sequence.number)
        return -1

    def _join(self, sequence: Sequence) -> None:
        """Let a sequence whose tokens but the last are in the cache decode from the next step on."""
        sequence.since = self.steps
        sequence.end = self.steps + sequence.request.output - sequence.made
        heapq.heappush(self.ends, (sequence.end, sequence.number, sequence))
        self.decoding += 1
        self.context += sequence.computed
        if self.paged and self.pool is not None:
            held = len(self.pool.tables[sequence.number]) * self.pool.block_tokens
            self.growing[(self.steps + held - sequence.computed) % self.pool.block_tokens].append(sequence)

    def _leave(self, sequence: Sequence) -> int:
        """Take a sequence out of decoding; return how many tokens it had in the cache."""
        if self.paged and self.pool is not None:
            held = len(self.pool.tables[sequence.number]) * self.pool.block_tokens
            began = sequence.since - sequence.computed
            self.growing[(began + held) % self.pool.block_tokens].remove(sequence)
        done = self.steps - sequence.since
        sequence.computed += done
        sequence.made += done
        sequence.since = -1
        self.decoding -= 1
        self.context -= sequence.computed
        self.filled -= sequence.computed
        return sequence.computed

    def finish(self, now: int) -> list:
        """End the step at `now`; return the sequences that leave: finished, or ready for a decoding replica."""
        left: list = []
        if self.decoding:
            self.gaps.append((now - self.begun_ns, self.decoding))
        self.busy = False
        self.steps += 1
        self.context += self.decoding
        self.filled += self.decoding
        for sequence, part in self.chunks:
            sequence.computed += part
            self.filled += part
            if sequence.computed < sequence.target:
                continue
            self.prefilling.remove(sequence)
            request = sequence.request
            if self.settings["prefix_caching"] and self.pool is not None and request.group >= 0:
                self.pool.remember(sequence.number, request.group, min(request.shared, sequence.computed))
            sequence.made += 1
            if sequence.first_ns < 0:
                sequence.first_ns = now
            else:
                self.gaps.append((now - sequence.last_ns, 1))
            if sequence.made == request.output or self.role == "prefill":
                self.filled -= sequence.computed
                self._out(sequence, now, left)
            else:
                self._join(sequence)
        while self.ends and self.ends[0][0] == self.steps:
            sequence = heapq.heappop(self.ends)[2]
            if sequence.since >= 0 and sequence.end == self.steps:
                self._leave(sequence)
                self._out(sequence, now, left)
        if self.static and not self.running:
            for sequence in self.ended:
                self._free(sequence)
            self.ended = []
        return left

    def _out(self, sequence: Sequence, now: int, left: list) -> None:
        sequence.last_ns = now
        if sequence.made == sequence.request.output:
            sequence.finish_ns = now
        self.running.remove(sequence)
        self.outstanding -= self._weight(sequence)
        left.append(sequence)
        if self.static:
            self.ended.append(sequence)
        else:
            self._free(sequence)

    def _free(self, sequence: Sequence) -> None:
        if self.pool is not None:
            self.pool.release(sequence.number)


def settings(given: dict) -> dict:
    """Return all settings of a replica, those given over the defaults, checked. Raises ValueError for a wrong one."""
    known: dict = {
        "batching": "continuous",
        "max_num_seqs": 256,
        "max_num_batched_tokens": 2048,
        "chunked_prefill": True,
        "blocks": None,
        "block_tokens": 16,
        "reserve": "paged",
        "prefix_caching": False,
        "max_wait_s": 0.1,
    }
    for name in sorted(given):
        if name not in known:
            raise tables.unknown("setting", name, sorted(known))
    known.update(given)
    kinds = ["continuous", "dynamic", "static"]
    if known["batching"] not in kinds:
        raise tables.unknown("batching", str(known["batching"]), kinds)
    for name in ("max_num_seqs", "max_num_batched_tokens", "block_tokens"):
        tables.whole(name, known[name])
    if known["blocks"] is not None:
        tables.whole("blocks", known["blocks"])
    known["max_wait_ns"] = int(tables.not_negative("max_wait_s", known["max_wait_s"]) * 1e9)
    if known["reserve"] != "paged":
        kvblocks.reserved_tokens(known["reserve"], 1, 1)
        if known["batching"] == "continuous" and known["prefix_caching"]:
            raise ValueError("prefix_caching needs paged memory: set reserve to 'paged'")
    return known
