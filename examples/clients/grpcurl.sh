#!/bin/sh
# A running service from a shell, with grpcurl: https://github.com/fullstorydev/grpcurl
#
#   examples/clients/grpcurl.sh [host:port]
#
# Reflection tells grpcurl the messages. Where it is closed ([service] reflection = false), add
#   -import-path proto -proto arbitrage/v1/arbitrage.proto
# Where the service has TLS, put -cacert ca.pem in place of -plaintext.
set -eu
address=${1:-127.0.0.1:50051}
service=arbitrage.v1.ArbitrageService

call() {
  method=$1
  shift
  if [ -n "${ARBITRAGE_TOKEN:-}" ]; then
    # grpcurl reads the variable: arguments of a process can be read by others on its machine
    set -- -expand-headers -H 'authorization: Bearer ${ARBITRAGE_TOKEN}' "$@"
  fi
  grpcurl -plaintext "$@" "$address" "$method"
}

# whether it serves; needs no token
grpcurl -plaintext "$address" grpc.health.v1.Health/Check

# one prompt, with all candidates, for at most a minute
call $service/Complete -max-time 60 \
  -d '{"prompt": {"text": "Wo liegt Lima?", "language": "de"}, "include_candidates": true}'

# the same, step by step
call $service/StreamComplete -max-time 60 -d '{"prompt": {"text": "Pourquoi le ciel est-il bleu ?"}}'

# many prompts over one stream
call $service/Arbitrate -max-time 60 -d @ <<'REQUESTS'
{"request_id": "1", "prompt": {"text": "Wo liegt Lima?"}}
{"request_id": "2", "prompt": {"text": "Var ligger Lima?"}}
REQUESTS

# the pool, and what was learned in a language
call $service/ListTeachers
call $service/GetPolicy -d '{"language": "de"}'
