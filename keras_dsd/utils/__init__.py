"""Helpers that know nothing of training: argument checks, files, tables, progress, figures."""
