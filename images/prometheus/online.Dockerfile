# The official Prometheus by digest, for Debian's is below its security floor; and a shell to deliver files with.
ARG OFFICIAL
ARG BASE
# hadolint ignore=DL3006
FROM ${OFFICIAL} AS official
FROM ${BASE}
# First, for a layer of its own: of equal ones built side by side, the engine's build cache finds another image's.
LABEL fortress.image=prometheus

COPY common/apt-install /usr/local/sbin/
ARG PACKAGES_OF
RUN apt-install ca-certificates \
    && groupadd --system --gid 105 prometheus \
    && useradd --system --uid 105 --gid 105 --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin prometheus \
    # A fresh named volume takes owner and mode from the folder it covers.
    && install -d -o prometheus -g prometheus -m 0750 /var/lib/prometheus \
    && install -d /config
COPY --from=official /bin/prometheus /bin/promtool /usr/bin/
COPY watchers/http-health /usr/local/bin/
COPY common/check-version /usr/local/sbin/
ARG FLOOR
RUN said=$(prometheus --version 2>&1) \
    && check-version Prometheus "${said%% (*}" at-least "$FLOOR" \
    'raise its tag in images/catalogue.yaml, then run bin/fortress images lock'

USER 105:105
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["/usr/local/bin/http-health", "127.0.0.1", "9090", "/-/ready"]
ENTRYPOINT ["/usr/bin/prometheus"]
CMD ["--config.file=/config/current/prometheus.yml"]
