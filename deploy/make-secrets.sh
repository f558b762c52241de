#!/usr/bin/env bash
# Makes what a server needs to listen beyond loopback: a certificate authority, a certificate and a token.
#   deploy/make-secrets.sh DIRECTORY NAME...      NAME: every host name or IP address that clients call the server by
set -euo pipefail

if [ $# -lt 2 ]; then
  echo "usage: $0 DIRECTORY NAME...   (found $(($#)) arguments, expected a directory and at least one host name or address)" >&2
  exit 2
fi
directory=$1
shift
if [ -e "$directory/ca.key" ]; then
  echo "$directory/ca.key exists; remove the directory to make new secrets, which every client then needs" >&2
  exit 1
fi
umask 077
mkdir -p "$directory"
cd "$directory"

names=""
for name in "$@"; do
  kind=DNS
  [[ $name =~ ^[0-9.]+$ || $name == *:* ]] && kind=IP
  names+="${names:+,}$kind:$name"
done

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=qtopt authority" \
  -addext "keyUsage=critical,keyCertSign,cRLSign" -keyout ca.key -out ca.crt 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=qtopt server" -keyout server.key -out server.csr 2>/dev/null
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 825 -out server.crt \
  -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' "$names") 2>/dev/null
openssl rand -hex 32 >token
rm server.csr
echo "made ca.crt, server.crt, server.key and token in $directory for $names; keep ca.key away from every machine that serves"
