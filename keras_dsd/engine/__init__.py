"""A run: takes one model through a timeline, and reaches Keras through the protocols alone."""
