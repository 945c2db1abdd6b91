from hypothesis import HealthCheck, settings

# How long an example takes says nothing: it is this machine's other work that is slow.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
