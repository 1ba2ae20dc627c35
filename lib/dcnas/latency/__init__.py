"""How long networks take on a device: `from dcnas.latency.measure import measure`."""
