#!/bin/sh
# Makes .env and the files of secrets/, once: what is there stays, since PostgreSQL keeps the password of its first start.
# The folder is its owner's alone. The files in it may be read by all, because the containers that are given one run under
# other numbers than its owner.
set -eu
umask 077
cd "$(dirname "$0")"

secret() {  # name, content
    [ -e "secrets/$1" ] && return
    printf '%s\n' "$2" >"secrets/$1.new"
    chmod 0444 "secrets/$1.new"
    mv "secrets/$1.new" "secrets/$1"
}

random() {
    od -An -tx1 -N24 /dev/urandom | tr -d ' \n'
}

[ -e .env ] || cp .env.example .env
mkdir -p secrets
secret postgres_password "$(random)"
secret valkey.conf "requirepass $(random)"
secret database_url "postgresql://creditlab:$(cat secrets/postgres_password)@postgres:5432/creditlab"
secret broker_url "redis://:$(sed 's/requirepass //' secrets/valkey.conf)@valkey:6379/0"
secret secret_key "$(random)"
secret grafana_password "$(random)"
