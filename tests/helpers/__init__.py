"""What tests share: models, data, and programs that run in processes of their own."""
