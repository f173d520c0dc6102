"""What tokens and lab minutes cost."""

import math

from . import tables


def usd_per_million_tokens(usd_per_hour: float, tokens_per_s: float, utilisation: float = 1.0) -> float:
    """Return dollars per million tokens of a machine that yields `tokens_per_s` for a share of the hours paid for.

    `utilisation` is that share, 0 to 1: an idle hour costs as much as a busy one. Raises ValueError if a rate is not
    more than 0, a price is negative, or the share is outside 0 to 1.
    """
    tables.not_negative("usd_per_hour", usd_per_hour)
    tables.positive("tokens_per_s", tokens_per_s)
    tables.fraction("utilisation", utilisation)
    return usd_per_hour / (tokens_per_s * utilisation * 3600) * 1e6


def break_even_tokens_per_s(usd_per_hour: float, usd_per_million: float, utilisation: float = 1.0) -> float:
    """Return the tokens per second from which renting at `usd_per_hour` is cheaper than `usd_per_million` tokens.

    The inverse of `usd_per_million_tokens`, with the same units and errors.
    """
    tables.positive("usd_per_hour", usd_per_hour)
    tables.positive("usd_per_million", usd_per_million)
    tables.fraction("utilisation", utilisation)
    return usd_per_hour / (usd_per_million * utilisation * 3600) * 1e6


def lab_usd(gpu: str, minutes: float, provider: "str | None" = None) -> dict:
    """Return what a lab of so many minutes on one such GPU costs, where it is cheapest or at one provider.

    Keys: usd, usd_per_hour, gpus, provider, instance, source, url, read. What must be rented counts, not what is used:
    AWS rents the A100, H100 and H200 by eight, so there `gpus` is 8 and `usd` is for eight. Only complete and verified
    on-demand prices compete; a named provider's is taken as it is. Raises ValueError for an unknown GPU or provider.
    """
    tables.positive("minutes", minutes)
    if provider is None:
        found = [row for row in tables.prices(gpu) if not row["partial"] and not row["unverified"]]
        if not found:
            raise ValueError(f"no complete and verified price of a {gpu} is known")
        record = min(found, key=lambda row: (row["usd_per_gpu_hour"] * row["gpus_per_instance"], row["provider"]))
    else:
        record = tables.price(gpu, provider)
    per_hour = record["usd_per_gpu_hour"] * record["gpus_per_instance"]
    cost = {"usd": per_hour * minutes / 60, "usd_per_hour": per_hour, "gpus": record["gpus_per_instance"]}
    for key in ("provider", "instance", "source", "url", "read"):
        cost[key] = record[key]
    return cost


HOURS_PER_MONTH = 730
"""A year's 8,760 hours, by twelve."""


def usd_per_million_in_and_out(
    usd_per_hour: float, prefill_tokens_per_s: float, decode_tokens_per_s: float, utilisation: float = 1.0
) -> dict:
    """Return dollars per million prompt tokens (`input`) and per million generated ones (`output`).

    Each kind pays for the machine's time it takes: the rates are what the machine reaches while it does nothing else.
    Errors as in `usd_per_million_tokens`.
    """
    return {
        "input": usd_per_million_tokens(usd_per_hour, prefill_tokens_per_s, utilisation),
        "output": usd_per_million_tokens(usd_per_hour, decode_tokens_per_s, utilisation),
    }


def build_or_buy(
    requests_per_month: float,
    prompt_tokens: float,
    output_tokens: float,
    usd_per_million_input: float,
    usd_per_million_output: float,
    replica_usd_per_hour: float,
    replica_requests_per_s: float,
    utilisation: float = 0.5,
    fixed_usd_per_month: float = 0.0,
) -> dict:
    """Return what a month costs with an API paid by the token and with replicas rented by the hour.

    A replica serves `replica_requests_per_s` when full, and `utilisation` is the share of that which its hours can be
    sold for: traffic has nights and peaks. `fixed_usd_per_month` is what running your own costs besides, people first.
    Keys: buy_usd, build_usd, replicas, cheaper ("build" or "buy"), usd_per_request (the API's), and
    break_even_requests_per_month: the smallest volume from which building costs no more, or None if none does since a
    full replica costs as much as what it saves. Above it a further replica can tip the balance back for a while. Raises
    ValueError for a negative volume or price, or a rate that is not more than 0.
    """
    tables.not_negative("requests_per_month", requests_per_month)
    tables.not_negative("prompt_tokens", prompt_tokens)
    tables.positive("output_tokens", output_tokens)
    tables.not_negative("usd_per_million_input", usd_per_million_input)
    tables.positive("usd_per_million_output", usd_per_million_output)
    tables.positive("replica_usd_per_hour", replica_usd_per_hour)
    tables.positive("replica_requests_per_s", replica_requests_per_s)
    tables.not_negative("fixed_usd_per_month", fixed_usd_per_month)
    each = (prompt_tokens * usd_per_million_input + output_tokens * usd_per_million_output) / 1e6
    holds = replica_requests_per_s * tables.fraction("utilisation", utilisation) * HOURS_PER_MONTH * 3600
    rent = replica_usd_per_hour * HOURS_PER_MONTH
    replicas = max(1, math.ceil(requests_per_month / holds))
    buy, build = requests_per_month * each, replicas * rent + fixed_usd_per_month
    break_even = None
    if holds * each > rent:
        needed = max(1, math.ceil(fixed_usd_per_month / (holds * each - rent)))
        break_even = (needed * rent + fixed_usd_per_month) / each
    return {
        "buy_usd": buy,
        "build_usd": build,
        "replicas": replicas,
        "cheaper": "build" if build <= buy else "buy",
        "usd_per_request": each,
        "break_even_requests_per_month": break_even,
    }
