"""The pretraining collection: sources -> tiles -> quality -> duplicates -> shards and manifest (no torch)."""
