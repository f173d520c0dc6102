"""One simulated engine in time: when its steps begin and end, what batches wait for, and what its users see."""

from . import kvblocks, scheduler, tables


def _pool(settings: dict):
    return None if settings["blocks"] is None else kvblocks.BlockPool(settings["blocks"], settings["block_tokens"])


class Replica:
    """An engine's scheduler and clock. `settings` are those of `simulator.simulate`; `role`: both, prefill or decode."""

    def __init__(self, number: int, step_s, settings: dict, role: str = "both"):
        self.number = number
        self.role = role
        self.settings = settings
        self.step_s = step_s
        self.static = settings["batching"] != "continuous"
        self.pool = _pool(settings)
        if self.static:  # all prompts of a batch run in one step
            settings = dict(settings)
            settings["max_num_batched_tokens"] = scheduler.NEVER
        self.scheduler = scheduler.Scheduler(settings, self.pool)
        self.step: list = []
        self.ended: list = []  # of a static batch: done, but holding their places until all are
        self.busy = False
        self.begun_ns = self.busy_ns = self.batch_ns = 0
        self.outstanding = 0  # tokens still to process of all that is here, for the router
        self.gaps: list = []
        self.steps = self.preemptions = self.recomputed = self.largest_step_ns = 0
        self.held_ns = self.waste_ns = 0.0

    def add(self, sequence: scheduler.Sequence) -> None:
        """Queue a sequence."""
        self.scheduler.add(sequence)
        sequence.replica = self.number
        self.outstanding += sequence.last

    def waiting(self) -> int:
        """Return how many sequences wait."""
        return len(self.scheduler.waiting)

    def fits(self, request) -> bool:
        """Return whether the request could ever run here alone."""
        if self.pool is None:
            return True
        places = max(request.prompt + request.output - 1, self.scheduler.places(request, request.prompt))
        return self.scheduler.blocks(places) <= self.pool.blocks

    def begin(self, now: int, flush: bool = False) -> "int | None":
        """Start a step at `now` if there is work; return when it ends, or None. `flush`: take an incomplete batch."""
        step = self.step = self.scheduler.schedule(not self.static or self._ready(now, flush))
        for sequence in self.scheduler.admitted:
            if sequence.start_ns < 0:
                sequence.start_ns = now
        for _, lost in self.scheduler.preempted:
            self.recomputed += lost
            self.preemptions += 1
        if not step:
            self._end_batch()
            return None
        tokens = samples = len(step)
        cached = sum([sequence.computed for sequence in step]) + tokens
        pairs = cached
        for sequence in self.scheduler.prefilling:  # each token attends to what is computed and to those before it
            part, computed = sequence.part, sequence.computed
            tokens += part - 1
            cached += part - 1
            pairs += (part - 1) * computed + part * (part + 1) // 2 - 1
        last = step[-1]  # the only one that the budget can have cut
        samples -= last.computed + last.part < last.tokens
        padding = len(self.ended)
        took = max(1, int(self.step_s(tokens + padding, samples + padding, pairs, cached) * 1e9 + 0.5))
        self.begun_ns = now
        self.busy_ns += took
        self.batch_ns += took * len(step)
        self.largest_step_ns = max(self.largest_step_ns, took)
        if self.pool is not None:
            filled = cached
            if padding or len(step) < len(self.scheduler.running):
                filled = tokens + sum([each.computed for each in self.scheduler.running + self.ended])
            self.held_ns += took * self.pool.used
            self.waste_ns += took * (self.pool.used - filled / self.pool.block_tokens)
        self.busy = True
        return now + took

    def _ready(self, now: int, flush: bool) -> bool:
        """Return whether a static batch can start: nothing runs, and it is full or has waited long enough."""
        waiting = self.scheduler.waiting
        if self.scheduler.running or not waiting:
            return False
        waited = now - waiting[0][1].arrival_ns >= self.settings["max_wait_ns"]
        return (
            flush
            or (self.settings["batching"] == "dynamic" and waited)
            or len(waiting) >= self.settings["max_num_seqs"]
        )

    def finish(self, now: int) -> list:
        """End the step at `now`; return the sequences that leave: finished, or ready for a decoding replica."""
        self.busy = False
        self.steps += 1
        left: list = []
        sampled = self.scheduler.update(self.step)
        together = len(sampled)  # those who also got a token at the end of the step before
        begun = self.begun_ns
        for sequence in sampled:
            if sequence.last_ns != begun:
                together -= 1
                if sequence.first_ns < 0:
                    sequence.first_ns = now
                else:
                    self.gaps.append((now - sequence.last_ns, 1))
            sequence.last_ns = now
            if sequence.tokens == sequence.last:
                sequence.finish_ns = now
                left.append(sequence)
            elif self.role == "prefill":
                left.append(sequence)
        if together:
            self.gaps.append((now - begun, together))
        for sequence in left:
            self.scheduler.remove(sequence)
            self.outstanding -= sequence.last
            if self.static:
                self.ended.append(sequence)
            else:
                self.scheduler.free(sequence)
        self._end_batch()
        return left

    def _end_batch(self) -> None:
        """Give back what a static batch held once none of it runs: all are done, or the last one had to give way."""
        if self.static and not self.scheduler.running:
            for sequence in self.ended:
                self.scheduler.free(sequence)
            self.ended = []


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
        "windows": (0,),
        "policy": "fcfs",
        "max_wait_s": 0.1,
    }
    for name in sorted(given):
        if name not in known:
            raise tables.unknown("setting", name, sorted(known))
    known.update(given)
    kinds = ["continuous", "dynamic", "static"]
    if known["batching"] not in kinds:
        raise tables.unknown("batching", str(known["batching"]), kinds)
    known["max_wait_ns"] = int(tables.not_negative("max_wait_s", known["max_wait_s"]) * 1e9)
    return scheduler.checked(known)
