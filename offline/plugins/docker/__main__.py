"""pulumi-resource-docker: containers, networks, volumes and images."""

from offline.plugins.docker.container import Container
from offline.plugins.docker.engine import configure
from offline.plugins.docker.image import RemoteImage
from offline.plugins.docker.network import Network
from offline.plugins.docker.volume import Volume
from offline.plugins.provider import serve

if __name__ == "__main__":
    serve("5.1.0", [Container(), Network(), Volume(), RemoteImage()], configure)
