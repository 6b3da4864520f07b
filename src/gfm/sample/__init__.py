"""The embedded sample: procedural imagery in every layout that the chain reads, the same bytes on every machine."""
