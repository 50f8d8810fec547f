"""Restore drills: restore a backup where nobody works, check it, measure it, and take everything away again."""
