"""Downstream tasks: their data formats and splits, what each kind predicts, and how a model is adapted and tested."""
