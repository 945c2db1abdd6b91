"""The four resource plugins of the registry-only engine. Not for production: the official ones are for that."""
