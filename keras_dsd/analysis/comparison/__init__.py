"""DSD against equal-budget baselines, trained over several seeds."""
