"""What a command says when it cannot go on."""


class Stop(Exception):
    """One sentence for the person at the terminal: what happened, and what to do. Ends the command with code 1."""
