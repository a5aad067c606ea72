"""Figures of a run, histograms of its weights, and TensorBoard."""
