"""Numerical operations that layers and plans use."""
