"""What exists and how it changes: the database, the states of a job, the bell. No torch, no FastAPI."""
