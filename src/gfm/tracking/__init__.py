"""What happened: MLflow runs, lineage, energy and the model registry. Works without any of these, and says so."""
