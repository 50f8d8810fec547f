"""The command line: the only place that reads arguments and environment, prints, and exits.

Data goes to stdout, messages and progress go to stderr. Each command is a function that takes an
*invocation* (what every command is given) and returns an *outcome* (what it found or did); the frame in
``command`` turns outcomes and errors into text, JSON and exit codes.
"""
