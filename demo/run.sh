#!/usr/bin/env bash
# The main job of muster, step by step, on this machine alone: a simulator stands in for EC2, all
# else is the real thing. Every step checks that it came out as it says.
set -euo pipefail

muster=${1:?usage: demo/run.sh PATH-OF-MUSTER}
out=demo-out
rm -rf "$out"
mkdir -p "$out"

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { sed 's/^/    /'; }
fail() { printf '\nThe demo went wrong: %s\nLogs are in %s/*.log\n' "$*" "$out" >&2; exit 1; }
# The string member NAME of the JSON on stdin.
member() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" | head -n 1; }

finish() {
    # shellcheck disable=SC2046 # one word for each process
    kill $(jobs -p) 2>/dev/null || true
    wait 2>/dev/null || true
}
trap finish EXIT

# Waits for the first line of FILE.
first_line() {
    for _ in $(seq 1 200); do
        [ -s "$1" ] && { head -n 1 "$1"; return; }
        sleep 0.05
    done
    fail "nothing was printed to $1"
}

# Joins with the metadata of INSTANCE and the state directory STATE, asking for POLICY; prints the
# answer as JSON and sets `status`.
join() {
    status=0
    answer=$("$muster" join --server "$server" --pin "$pin" --policy "$3" --output json \
        --imds-endpoint "$metadata/$1" --state "$out/$2" --timeout 10s 2>>"$out/join.log") || status=$?
}

local_command() { "$muster" "$@" --data-dir "$out/data"; }

allowed=i-0a000000000000001
stranger=i-0b000000000000002
quarantined=i-0c000000000000003

say "A simulator plays EC2: three instances, each with a signed identity document."
"$muster" sim --scenario demo/scenario.toml --out "$out/sim" --output json \
    >"$out/sim.ready" 2>"$out/sim.log" &
metadata=$(first_line "$out/sim.ready" | member "$allowed")
metadata=${metadata%/*}

say "The server: one binary, one data directory, and the allow-lists of policies/."
"$muster" server --simulation "$out/sim" --data-dir "$out/data" --policies policies \
    --listen 127.0.0.1:0 --diagnostics-listen 127.0.0.1:0 --output json \
    >"$out/server.ready" 2>"$out/server.log" &
ready=$(first_line "$out/server.ready")
server=$(printf '%s' "$ready" | member join)
pin=$(printf '%s' "$ready" | member pin)
printf 'listens on %s, nodes trust it by %s\n' "$server" "$pin" | show

say "1. An instance of a listed account joins. No secret was given to it."
join "$allowed" node web
[ "$status" = 0 ] || fail "the allowed instance was refused: $answer"
first=$(printf '%s' "$answer" | member serial)
printf '%s\n' "$answer" | member spiffe_id | show
printf 'certificate %s until %s\n' "$first" "$(printf '%s' "$answer" | member not_after)" | show

say "2. An instance of an account that nobody listed is refused. It is not told why; you are:"
join "$stranger" stranger web
[ "$status" = 1 ] || fail "the stranger got exit status $status: $answer"
printf 'the node sees: %s\n' "$(printf '%s' "$answer" | member code)" | show
local_command audit show "$(printf '%s' "$answer" | member correlation_id)" | show

say "3. Somebody copied the first instance's document and comes with a key of his own."
join "$allowed" thief web
[ "$status" = 1 ] || fail "the copy got exit status $status: $answer"
printf 'the thief sees: %s\n' "$(printf '%s' "$answer" | member code)" | show
printf 'and the audit log has a security event:\n' | show
local_command audit ls --class security --outcome refused | show
events=$(local_command audit ls --class security --outcome refused | grep -c ENROLLMENT_CONFLICT)
[ "$events" = 1 ] || fail "expected one security event, found $events"

say "4. The first instance lost the reply and asks again: the same certificate, no second one."
join "$allowed" node web
again=$(printf '%s' "$answer" | member serial)
[ "$again" = "$first" ] || fail "expected $first again, got $again"
printf 'certificate %s\n' "$again" | show

say "5. An image on the deny list is refused, whichever policy the node names."
for policy in web batch bastion; do
    join "$quarantined" "quarantined-$policy" "$policy"
    [ "$status" = 1 ] || fail "policy $policy gave exit status $status: $answer"
    id=$(printf '%s' "$answer" | member correlation_id)
    code=$(local_command audit show "$id" --output json | member code)
    printf '%-8s %s\n' "$policy" "$code" | show
    [ "$code" = POLICY_DENIED ] || fail "policy $policy refused with $code"
done

say "6. The audit log is a hash chain, and it is whole."
local_command audit verify | show

say "Look at:"
cat <<END | show
$out/node/current/   key, certificate, trust bundle and record of the node that joined
policies/            who may join
$out/server.log      what the server said

openssl verify -CAfile $out/node/current/bundle.pem -untrusted $out/node/current/certificate.pem $out/node/current/certificate.pem
END
if command -v openssl >/dev/null; then
    openssl verify -CAfile "$out/node/current/bundle.pem" \
        -untrusted "$out/node/current/certificate.pem" "$out/node/current/certificate.pem" | show
fi
