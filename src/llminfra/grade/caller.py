"""Call functions of a learner's folder, the working folder, and write what they return: `python caller.py REQUESTS RESULTS`.

REQUESTS is a folder with files 0.json, 1.json …: `name` (module:function), `args`, `kwargs`. Each is answered, once it is there, by a
file of that name in RESULTS: the `value`, or what was raised. It ends when there is a file `end`, after the requests before it.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import itertools
import json
import os
import sys
import time
import traceback
from typing import Any

LOOK_S = 0.002


def answered(name: str, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return what a call comes to: {value}, or {kind, message, trace}."""
    try:
        module_name, _, function = name.partition(":")
        module = importlib.import_module(module_name)
        if not os.path.abspath(inspect.getfile(module)).startswith(os.getcwd() + os.sep):
            raise ImportError(f"there is no module {module_name} in the folder")
        value = getattr(module, function)(*args, **kwargs)
        answer = {"value": asyncio.run(value) if inspect.iscoroutine(value) else value}
        json.dumps(answer)
        return answer
    except BaseException as error:
        return {"kind": type(error).__name__, "message": str(error), "trace": traceback.format_exc()}


def main(requests: str, results: str) -> None:
    """Answer requests in their order until the end."""
    sys.path[0] = os.getcwd()
    for number in itertools.count():
        asked = os.path.join(requests, f"{number}.json")
        while not os.path.exists(asked):
            if os.path.exists(os.path.join(requests, "end")):
                return
            time.sleep(LOOK_S)
        with open(asked, encoding="utf-8") as file:
            answer = answered(**json.load(file))
        made = os.path.join(results, f"{number}.json")
        with open(f"{made}.part", "w", encoding="utf-8") as file:
            json.dump(answer, file)
        os.replace(f"{made}.part", made)


if __name__ == "__main__":
    main(*sys.argv[1:])
