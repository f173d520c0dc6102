"""The whole suite as jobs: what each needs, two lanes that never idle while there is work, and an account at the end.

    python -m suite [--slow] [PATH…]

A job is a process: one notebook, one heavy test file, all light ones together. What starts an engine waits for a lock on
memory; what stands in the ledger is reported and not executed. `make test` and `make check` run this.
"""
