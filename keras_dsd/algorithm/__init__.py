"""The algorithm in NumPy and plain values: phases, masks, selection. Imports no framework."""
