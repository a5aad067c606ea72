"""How much pruning each weight alone costs."""
