"""Rounds of backup, restore and verify: the repository, the rounds, and what must be true after each of them."""
