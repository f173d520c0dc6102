"""Another client: aiohttp, and coroutines."""

import asyncio
import json
import random
import time

import aiohttp


def backoff(settings, retry, retry_after):
    """Return seconds."""
    step = settings["wait_s"]
    for _ in range(retry - 1):
        step = min(2 * step, settings["longest_wait_s"])
    step = min(step, settings["longest_wait_s"])
    try:
        return float(retry_after) + random.random() * step
    except (TypeError, ValueError):
        return step * (1 + random.random()) / 2


class Problem(Exception):
    """A request that failed, and whether it may be sent again."""

    def __init__(self, kind, status, message, again=False, after=None):
        super().__init__(message)
        self.shown = {"kind": kind, "status": status, "message": str(message)}
        self.again, self.after = again, after


async def ask(settings, prompt, max_tokens):
    """Return a result."""
    result = dict(text="", usage=None, finish_reason=None, error=None, attempts=0, start_s=time.monotonic(), token_s=[])
    question = {
        "model": settings["model"],
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings["connect_s"], sock_read=settings["silence_s"])
    headers = {"Authorization": f"Bearer {settings['api_key']}"} if settings.get("api_key") else {}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        for retry in range(1, settings["retries"] + 2):
            result["attempts"] = retry
            try:
                await once(session, settings["base_url"] + "/chat/completions", question, result)
                result["error"] = None
                return result
            except Problem as problem:
                result["error"] = problem.shown
                if not problem.again:
                    return result
                if retry <= settings["retries"]:
                    await asyncio.sleep(backoff(settings, retry, problem.after))
    return result


async def once(session, url, question, result):
    """Send the question. Raises Problem."""
    try:
        async with session.post(url, json=question) as response:
            if response.status in (429, 503):
                raise Problem(
                    "unavailable", response.status, await said(response), True, response.headers.get("Retry-After")
                )
            if response.status != 200:
                raise Problem("refused", response.status, await said(response))
            try:
                await read(response.content, result)
            except TimeoutError as error:
                raise Problem("timeout", 200, error) from error
            except aiohttp.ClientError as error:
                raise Problem("broken", 200, error) from error
    except aiohttp.ConnectionTimeoutError as error:
        raise Problem("unavailable", None, error, True) from error
    except TimeoutError as error:
        raise Problem("timeout", None, error) from error
    except aiohttp.ClientError as error:
        raise Problem("unavailable", None, error, True) from error


async def said(response):
    """Return what the server says."""
    body = await response.json(content_type=None)
    return body["error"]["message"] if isinstance(body.get("error"), dict) else body


async def read(content, result):
    """Read the stream. Raises Problem."""
    async for line in content:
        field, _, value = line.partition(b":")
        if field != b"data":
            continue
        if value.strip() == b"[DONE]":
            return
        event = json.loads(value)
        if event.get("error"):
            raise Problem("broken", 200, event["error"]["message"])
        if event.get("usage"):
            result["usage"] = event["usage"]
        for choice in event["choices"]:
            text = choice["delta"].get("content") or ""
            if text:
                result["token_s"].append(time.monotonic())
            result["text"] += text
            if choice["finish_reason"]:
                result["finish_reason"] = choice["finish_reason"]
    raise Problem("broken", 200, "no [DONE]")
