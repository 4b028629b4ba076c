# The slim image: api, health, flower, migrations and the command line. No torch. It runs as user `tidal` and writes to
# /var/lib/tidal and /tmp only, so its root file system can be read-only.
ARG BASE=python:3.11-slim
FROM ${BASE}
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin tidal \
 && mkdir -p /var/lib/tidal/experiments /var/lib/tidal/data \
 && chown -R tidal:tidal /var/lib/tidal
# Dependencies are installed first, because they change less often than the code.
COPY requirements/slim.txt requirements/
RUN pip install --require-hashes -r requirements/slim.txt
COPY pyproject.toml README.md LICENSE ./
RUN mkdir -p common services tidal_client && touch common/__init__.py services/__init__.py tidal_client/__init__.py \
 && pip install --no-deps --no-build-isolation -e .
COPY alembic.ini ./
COPY configs ./configs
COPY migrations ./migrations
COPY common ./common
COPY services ./services
COPY tidal_client ./tidal_client
RUN python -m compileall -q common services tidal_client migrations
# Experiments are named after this commit. It comes last, because it changes with every build.
ARG TIDAL_COMMIT=nogit
# HOME must be writable; downloads from a hub go to the data volume, beside the corpora.
ENV TIDAL_COMMIT=${TIDAL_COMMIT} HOME=/tmp HF_HOME=/var/lib/tidal/data/hub
USER tidal
EXPOSE 4400
CMD ["python", "-m", "services.api"]
