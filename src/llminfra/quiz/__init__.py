"""The question bank: what it holds, what it must keep, and the forms in which it leaves the site."""
