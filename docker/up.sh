#!/bin/sh
# The service in containers, from a fresh clone: makes what is missing, builds, starts, waits until it is ready.
set -eu
cd "$(dirname "$0")"
./init.sh
compose() {
    if docker compose version >/dev/null 2>&1; then docker compose "$@"; else docker-compose "$@"; fi
}
compose build
compose up --detach --remove-orphans "$@"

api=$(compose ps --quiet api)
state=starting
for _ in $(seq 150); do
    state=$(docker inspect --format '{{.State.Health.Status}}' "$api")
    [ "$state" = healthy ] && break
    sleep 2
done
if [ "$state" != healthy ]; then
    compose logs --tail 50 >&2
    echo "the API is $state; above are the last lines of the logs" >&2
    exit 1
fi
cat <<END

ready at http://$(compose port api 8000)
a key:     cd docker && docker compose exec api creditlab keys create --scope admin
           (with docker-compose 1.29: docker-compose exec api ...)
its use:   export CREDITLAB_API_KEY=clk_...; curl -H "Authorization: Bearer \$CREDITLAB_API_KEY" .../v1/jobs
its end:   cd docker && docker compose down     (the data stay; with --volumes they go)
END
