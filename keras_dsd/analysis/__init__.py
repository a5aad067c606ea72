"""What a user finds out about a model or a run: a report, sensitivities, a comparison."""
