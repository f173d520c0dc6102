"""An expression is refused where its function cannot read the type of its metric; Prometheus would answer all the same."""

import re

import pytest
from checks import promql

TTFT = "vllm:time_to_first_token_seconds"


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("rate(vllm:num_requests_running[5m])", "rate of vllm:num_requests_running.5m., a gauge.*avg_over_time"),
        ("increase((vllm:kv_cache_usage_perc)[5m:])", "increase of .*a gauge"),
        ("1 + sum by (pod) (irate(vllm:num_requests_waiting[1m]))", "irate of vllm:num_requests_waiting"),
        ("rate(rate(vllm:prompt_tokens_total[5m])[1h:1m])", "rate of rate"),
        ("rate(up[5m])", "rate of up"),
        ("delta(vllm:num_preemptions_total[5m])", "delta of .*a counter.*take rate or increase"),
        ("deriv(vllm:prompt_tokens_total[5m]) > 0", "deriv of .*a counter"),
        (f"max_over_time({TTFT}_count[5m])", "max_over_time of .*a counter"),
        (f"min_over_time({TTFT}_bucket[5m])", "min_over_time of .*a counter"),
        ("quantile_over_time(0.9, vllm:prompt_tokens_total[5m])", "quantile_over_time of .*a counter"),
        ("avg_over_time(sum(vllm:prompt_tokens_total)[1h:1m])", "avg_over_time of sum.*a counter"),
        ("histogram_quantile(0.9, rate(vllm:num_preemptions_total[5m]))", "vllm:num_preemptions_total is a counter"),
        ("histogram_quantile(0.9, vllm:num_requests_waiting)", "vllm:num_requests_waiting is a gauge"),
        (f"histogram_quantile(0.9, rate({TTFT}_sum[5m]))", f"{TTFT}_sum is a counter: .*`_bucket`"),
        (f"histogram_quantile(0.9, sum(rate({TTFT}_bucket[5m])))", "drops `le`"),
        (f"histogram_quantile(0.9, sum by (pod) (rate({TTFT}_bucket[5m])))", "drops `le`"),
        (f"histogram_quantile(0.9, sum without (le) (rate({TTFT}_bucket[5m])))", "drops `le`"),
        (f"histogram_quantile(99, rate({TTFT}_bucket[5m]))", r"histogram_quantile\(99, …\): .*between 0 and 1"),
    ],
)
def test_a_function_over_the_wrong_type_of_metric_is_refused(expression, words):
    (reason,) = promql.problems(expression)
    assert re.search(words, reason), reason


@pytest.mark.parametrize(
    "expression",
    [
        "rate(vllm:num_preemptions_total[5m]) > 0",
        f"rate({TTFT}_sum[5m]) / rate({TTFT}_count[5m])",
        f"histogram_quantile(0.99, sum by (le, pod) (rate({TTFT}_bucket[5m])))",
        f"histogram_quantile(0.99, sum without (engine) (rate({TTFT}_bucket[5m])))",
        f"histogram_quantile(0.5, {TTFT}_bucket)",
        f"1 - histogram_fraction(0, 0.5, rate({TTFT}_bucket[5m]))",
        "max_over_time(rate(vllm:prompt_tokens_total[5m])[1h:1m])",
        "max_over_time(vllm:num_requests_waiting[5m]) > 5",
        "predict_linear(vllm:kv_cache_usage_perc[1h], 3600) > 1",
        "changes(process_start_time_seconds[15m]) > 2",
        "avg_over_time(up[5m]) < 1",
    ],
)
def test_a_function_over_the_type_that_it_reads_passes(expression):
    assert promql.problems(expression) == []


def test_a_recorded_metric_has_the_type_that_its_rule_gives_it():
    assert promql.problems("rate(job:tokens:total[5m])", {"job:tokens:total"}) == []
    assert promql.problems("histogram_quantile(0.9, job:ttft:rate5m)", {"job:ttft:rate5m"}) == []
