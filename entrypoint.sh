#!/bin/sh
# Bring the schema up to date (any number of containers may do so at once), then become the given command.
set -eu
python -m app migrate
exec "$@"
