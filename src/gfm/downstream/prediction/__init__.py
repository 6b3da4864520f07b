"""A fine-tuned model on new imagery: `gfm predict`."""
