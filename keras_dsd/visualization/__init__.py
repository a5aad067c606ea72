"""What is drawn of a run: weights through the phases, learning curves, TensorBoard."""
