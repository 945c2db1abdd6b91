# The official image by digest; what is added is only who it runs as and who owns the model volume.
ARG BASE
# hadolint ignore=DL3006
FROM ${BASE}
LABEL fortress.image=ollama

# Whoever the official image runs as.
USER 0:0
COPY common/check-version /usr/local/sbin/
ARG FLOOR
ARG VERSION
RUN said=$(HOME=/tmp ollama --version 2>&1) \
    && check-version Ollama "$said" at-least "$FLOOR" 'raise its tag in images/catalogue.yaml, then run bin/fortress images lock' \
    && check-version Ollama "$said" exactly "$VERSION" 'run bin/fortress images lock, so that tag and digest agree'

# A fresh named volume takes owner and mode from the folder it covers.
RUN install -d -o 1000 -g 1000 -m 0750 /models /home/ollama

ENV OLLAMA_HOST=0.0.0.0:11434 OLLAMA_MODELS=/models HOME=/home/ollama
USER 1000:1000
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s --retries=3 CMD ["/usr/bin/ollama", "ls"]
ENTRYPOINT ["/usr/bin/ollama"]
CMD ["serve"]
