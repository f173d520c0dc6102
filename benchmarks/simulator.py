"""How long the simulator takes for an hour of conversations: the bar is 10 s for 19,000 requests."""

import sys
import time

from llminfra.calc import memory, roofline, simulator, workload

BAR_S = 10


def main() -> int:
    requests = workload.requests(19_000, "conversation", rate_per_s=5.53)
    slow = 0
    for gpu, replicas in (("a100-80gb", 1), ("a10g", 4)):
        blocks = memory.plan("Qwen2.5-7B-Instruct", gpu, "bf16", 2048)["blocks"]
        step_s = roofline.step_time("Qwen2.5-7B-Instruct", gpu, "bf16")
        began = time.perf_counter()
        told = simulator.simulate(requests, step_s, blocks=blocks, replicas=replicas, routing="least loaded")
        took = time.perf_counter() - began
        slow += took > BAR_S
        print(
            f"{replicas} x {gpu}: {took:.1f} s for {told['steps']:,} steps, {told['duration_s'] / took:.0f}x real time"
        )
    return slow


if __name__ == "__main__":
    sys.exit(main())
