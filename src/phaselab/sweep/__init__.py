"""Sweeps over the units of a study."""
