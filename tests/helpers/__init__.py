"""What tests share: models, data, and programs that run in separate processes."""
