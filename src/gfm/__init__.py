"""gfm: geospatial foundation models by continual pretraining."""

__version__ = "0.1.0"
