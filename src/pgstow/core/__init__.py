"""Ground that every layer stands on: errors, processes, schedules, secrets, progress, LSNs.

Nothing in here knows about PostgreSQL sessions, repositories or object stores.
"""
