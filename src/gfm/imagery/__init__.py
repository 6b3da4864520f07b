"""Pixels: reading rasters and pictures as declared, hashing them, and saying where on Earth they lie (no torch)."""
