"""What may stand before a model to defend it, and the model behind it as an attacker who knows it sees it."""
