#!/bin/sh
# `mt5crs` of the release that runs on this host; connection and key are those of the service (sudo reads them).
# `mt5crs --instance NAME …`: of a further Inf on this machine. Managed by the deployment.
at=
if [ "${1-}" = --instance ]; then
    at=@${2-}
    shift "$(($# > 1 ? 2 : 1))"
fi
for service in "reconciler$at" "strategy$at" "gateway$at"; do
    here=/opt/mt5crs/$service/current
    if [ ! -x "$here/venv/bin/python" ]; then continue; fi
    # A gateway has no client's key, so it has nothing to say here.
    if [ "$service" != gateway ]; then export MT5CRS_ENV_FILE="${MT5CRS_ENV_FILE-$here/.env}"; fi
    export PYTHONDONTWRITEBYTECODE=1
    exec "$here/venv/bin/python" -m mt5crs "$@"
done
if [ -n "$at" ]; then
    there=$(ls -d /opt/mt5crs/reconciler@* 2>/dev/null | sed 's/.*@//' | tr '\n' ' ')
    echo "mt5crs: no instance ${at#@} trades on this host; there are: ${there:-none}" >&2
    exit 2
fi
echo "mt5crs: nothing that trades runs on this host; use it on an Inf host or on the controller (--inventory). On the Hub: mt5crs-release deployment list" >&2
exit 1
