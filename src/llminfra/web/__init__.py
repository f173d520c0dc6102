"""What a page shows of `calc`: widgets, their forms, markup and drawings.

CPython runs these files when the site is built, MicroPython in the page, as those of `calc`: the same rules hold for both.
"""
