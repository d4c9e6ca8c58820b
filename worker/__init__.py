"""Processes: the Celery worker, its supervisors and their training processes."""
