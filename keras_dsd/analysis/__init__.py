"""Analyses of a model or a run: sparsity report, sensitivity scan, comparison."""
