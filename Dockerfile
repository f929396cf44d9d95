# The API and the worker in one image: `stillpoint serve` (the default) or `stillpoint worker`.
# BASE may be any Debian with Python 3.11 or newer.
ARG BASE=docker.io/library/debian:trixie-slim

FROM ${BASE} AS build
ENV DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv python3-dev gcc libc6-dev pkg-config libvirt-dev ca-certificates \
    && rm -rf /var/lib/apt/lists/*
# The requirements first: they change less often than the code, and libvirt-python takes long to compile.
COPY requirements/service.txt /src/requirements/service.txt
RUN python3 -m venv /opt/stillpoint && /opt/stillpoint/bin/pip install --require-hashes --requirement /src/requirements/service.txt
COPY pyproject.toml README.md /src/
COPY migrations /src/migrations
COPY service /src/service
RUN /opt/stillpoint/bin/pip install --no-deps /src

FROM ${BASE}
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 libvirt0 qemu-utils python3-libnbd ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --home-dir /var/lib/stillpoint --create-home --shell /usr/sbin/nologin stillpoint \
    && chmod 0700 /var/lib/stillpoint
COPY --from=build /opt/stillpoint /opt/stillpoint
ENV PATH=/opt/stillpoint/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    STILLPOINT_STATE_DIR=/var/lib/stillpoint \
    STILLPOINT_BIND=0.0.0.0 \
    STILLPOINT_LOG_FORMAT=json
# The worker needs root for the files of the guests: docker-compose.yml gives it to the worker alone.
USER stillpoint
VOLUME /var/lib/stillpoint
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
ENTRYPOINT ["stillpoint"]
CMD ["serve"]
