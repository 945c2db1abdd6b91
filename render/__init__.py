"""Settings in, config text out: pure functions that import no pulumi."""
