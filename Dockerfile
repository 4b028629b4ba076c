# The slim image: api, health, flower, migrations and the command line. No torch.
ARG BASE=python:3.11-slim
FROM ${BASE}
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin tidal \
 && mkdir -p /var/lib/tidal/experiments /var/lib/tidal/data \
 && chown -R tidal:tidal /var/lib/tidal
# Dependencies first: they change rarely, the code often.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir -p common services && touch common/__init__.py services/__init__.py \
 && pip install -c constraints.txt -e .
COPY alembic.ini ./
COPY configs ./configs
COPY migrations ./migrations
COPY common ./common
COPY services ./services
# Experiments are named after it. Last, because it changes with every build.
ARG TIDAL_COMMIT=nogit
ENV TIDAL_COMMIT=${TIDAL_COMMIT}
USER tidal
EXPOSE 4400
CMD ["python", "-m", "services.api"]
