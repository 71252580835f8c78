#!/bin/sh
# `mt5crs` of the release that runs on this host; connection and key are those of the service (sudo reads them).
# Managed by the deployment.
for service in reconciler strategy gateway; do
    here=/opt/mt5crs/$service/current
    if [ ! -x "$here/venv/bin/python" ]; then continue; fi
    # A gateway has no client's key, so it has nothing to say here.
    if [ "$service" != gateway ]; then export MT5CRS_ENV_FILE="${MT5CRS_ENV_FILE-$here/.env}"; fi
    export PYTHONDONTWRITEBYTECODE=1
    exec "$here/venv/bin/python" -m mt5crs "$@"
done
echo "mt5crs: nothing that trades runs on this host; use it on an Inf host or on the controller (--inventory). On the Hub: mt5crs-release deployment list" >&2
exit 1
