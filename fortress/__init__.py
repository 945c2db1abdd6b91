"""The command line around the Pulumi program: make it run on this machine, and everything after the first day."""
