"""The course's arithmetic: memory, roofline, cost, and the tables they read.

Pure Python: the same files run in CPython and, in a page, in MicroPython. They import `math`, `heapq`, `json`,
`collections` and one another, nothing else. Units stand in the names: `_bytes`, `_s`, `_per_s`, `_usd`. Wherever a
function takes a `gpu` or a `model` it takes a name or a record of `tables`; what is wrong raises ValueError.
"""
