"""What the models are worth: scores, ARP with its interval, energy, and the report that shows them."""
