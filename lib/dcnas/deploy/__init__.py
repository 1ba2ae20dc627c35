"""Trained networks at work: their files, applied to pictures, and exported for a board."""
