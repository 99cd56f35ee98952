"""Frozen generators behind one protocol (`base.Generator`); `registry.build_generator` makes them by name."""
