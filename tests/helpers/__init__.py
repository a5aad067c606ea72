"""Shared parts of tests: models, data, and programs that run in separate processes."""
