"""Comparison methods behind one contract."""
