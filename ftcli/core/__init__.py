"""What every part of ftcli shares: errors, config, the stage contract, the run directory. Imports nothing else of ftcli."""
