"""The registry-only engine kit: what stands in for downloads where only package registries are reachable."""
