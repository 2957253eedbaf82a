#!/bin/sh
# Installs what tests/system.txt names and this machine lacks. A test whose program is missing
# fails with its name; nothing is skipped.
set -eu
missing=
while read -r package program; do
    case $package in '#'* | '') continue ;; esac
    # The shell spells out a pattern; a plain name is looked up on the path.
    for found in $program; do
        command -v "$found" >/dev/null 2>&1 || missing="$missing $package"
        break
    done
done <"$(dirname "$0")/system.txt"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086 - a list of names
    apt-get install -qq -y --no-install-recommends $missing >/dev/null
else
    echo "install these for the whole of the tests (Debian's names):$missing" >&2
fi
