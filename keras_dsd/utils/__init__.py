"""Helpers that are independent of training: argument checks, files, tables, progress, figures."""
