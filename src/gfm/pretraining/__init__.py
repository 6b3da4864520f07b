"""Making encoders: the teacher, the untrained baseline and continual pretraining, on Lightning."""
