"""Retrieval-augmented generation: what chapters 3 and 4 build, a module a step."""
