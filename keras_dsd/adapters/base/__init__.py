"""Parts of the adapters that are the same for both Kerases; imports no framework."""
