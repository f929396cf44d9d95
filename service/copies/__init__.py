"""Copies of a repository elsewhere: the stores, and what a courier (a process of its own) does between a repository and a store."""
