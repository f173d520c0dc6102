"""Chapters and their executed twins: read, stamp, remember what was executed, execute."""
