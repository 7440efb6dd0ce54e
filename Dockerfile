# Build stage: the packages, in an environment of their own, so that pip's leftovers stay behind.
FROM python:3.11-slim-bookworm AS build
RUN python -m venv /venv
WORKDIR /build
COPY requirements.txt .
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check -r requirements.txt

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --create-home tollgate \
    && install --directory --owner=10001 --mode=0700 /var/lib/tollgate
COPY --from=build /venv /venv
WORKDIR /srv
COPY alembic.ini entrypoint.sh ./
COPY alembic alembic
COPY app app
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    APP_ENV=production \
    DATA_DIR=/var/lib/tollgate \
    HOST=0.0.0.0 \
    PORT=8000
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["./entrypoint.sh"]
CMD ["python", "-m", "app", "serve"]
