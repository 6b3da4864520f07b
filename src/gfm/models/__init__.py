"""Networks as plain nn.Modules: encoders, masking, the student and its teacher. No Lightning here."""
