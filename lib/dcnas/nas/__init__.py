"""Section 4: the search space, the supernet, the search for a target latency, and the networks that come
of it."""
