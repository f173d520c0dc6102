"""What tokens and lab minutes cost."""

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
