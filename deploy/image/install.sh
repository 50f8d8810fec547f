#!/bin/sh
# What the image is made of, step by step: each RUN of deploy/Dockerfile calls one of these, and the tests do too.
#
#   install.sh build-packages         what compiling needs (in the stage that is thrown away)
#   install.sh venv SOURCE PREFIX     pgstow from the checkout SOURCE in a virtual environment, all of it pinned by hash
#   install.sh packages NAME...       what running needs: client programs of PostgreSQL, an init
#   install.sh account                the user, and the folders that belong to it
#   install.sh smoke PREFIX           fails the build if pgstow does not start or finds no pg_dump
set -eu

UID_OF_PGSTOW=10001
STATE=/var/lib/pgstow
CACHE=/var/cache/pgstow

apt_install() {
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
  rm -rf /var/lib/apt/lists/*
}

build_packages() {
  apt_install gcc libc6-dev
}

venv() {
  source=$1
  prefix=$2
  ${PYTHON:-python3} -m venv "$prefix"
  "$prefix/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
    -r "$source/requirements.lock"
  # The build tool is pinned in the lock as well, hence no isolated build.
  "$prefix/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    --no-build-isolation --no-index "$source"
}

# A folder of *.sources or *.list files and their keys, for client programs that the base image's Debian does not have.
packages() {
  if [ -d /tmp/apt ]; then
    find /tmp/apt -name '*.asc' -o -name '*.gpg' | while read -r key; do
      install -D -m 0644 "$key" "/etc/apt/keyrings/$(basename "$key")"
    done
    find /tmp/apt -name '*.sources' -o -name '*.list' | while read -r list; do
      install -m 0644 "$list" "/etc/apt/sources.list.d/$(basename "$list")"
    done
  fi
  apt_install ca-certificates tini tzdata "$@"
}

account() {
  groupadd --system --gid "$UID_OF_PGSTOW" pgstow
  useradd --system --uid "$UID_OF_PGSTOW" --gid pgstow --home-dir "$STATE" --no-create-home \
    --shell /usr/sbin/nologin pgstow
  # Volumes that are mounted here for the first time take over whose the folders are.
  install -d -m 0700 -o pgstow -g pgstow "$STATE" "$STATE/repository" "$CACHE"
  install -d -m 0755 /etc/pgstow
}

smoke() {
  "$1/bin/pgstow" --version
  "$1/bin/python" -c 'import sys
from pgstow.postgres.tools import find_tools
found = find_tools("/usr/bin")
print("client programs:", ", ".join(tools.text for tools in found))
sys.exit(not any(tools.has_tls for tools in found))'
}

step=${1:-}
[ $# -eq 0 ] || shift
case $step in
  build-packages) build_packages ;;
  venv) venv "$@" ;;
  packages) packages "$@" ;;
  account) account ;;
  smoke) smoke "$@" ;;
  *)
    echo "usage: install.sh build-packages | venv SOURCE PREFIX | packages NAME... | account | smoke PREFIX" >&2
    exit 2
    ;;
esac
