"""Many streams through two workers, with short tokens, callers who leave, and a worker that is killed."""
