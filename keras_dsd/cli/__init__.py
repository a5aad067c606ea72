"""The command `keras-dsd`: a module for each of its commands, and what they share."""
