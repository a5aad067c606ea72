"""One run: takes a model through a timeline, and reaches Keras through protocols alone."""
