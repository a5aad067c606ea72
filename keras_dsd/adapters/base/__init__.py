"""What the adapters of both Kerases share."""
