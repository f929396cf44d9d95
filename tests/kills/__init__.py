"""Kills at random instants of merge, prune, heal and copy, without a guest: a real worker, and what is true of its repository then."""
