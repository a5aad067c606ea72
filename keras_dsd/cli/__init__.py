"""The command `keras-dsd`: a module for each subcommand, and shared parts."""
