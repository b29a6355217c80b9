"""Start a worker for one stage: as a child process, or inside this one for debugging."""
