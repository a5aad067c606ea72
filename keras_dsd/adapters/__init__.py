"""What differs between Kerases: the only package that imports a framework."""
