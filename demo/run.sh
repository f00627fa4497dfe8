#!/usr/bin/env bash
# The main job of muster, step by step, on this machine alone: a simulator stands in for EC2, all
# else is the real thing. Every step checks that it came out as it says.
set -euo pipefail

muster=${1:?usage: demo/run.sh PATH-OF-MUSTER [pkcs11]}
ca=${2:-builtin}
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

# Waits until FILE has so many lines with TEXT: COUNT TEXT FILE.
wait_for() {
    for _ in $(seq 1 600); do
        [ "$(grep -c "$2" "$3")" -ge "$1" ] && return
        sleep 0.05
    done
    fail "$3 never said '$2' $1 times"
}

# Joins with the metadata of INSTANCE and the state directory STATE, asking for POLICY; prints the
# answer as JSON and sets `status`.
join() {
    status=0
    answer=$("$muster" join --server "$server" --pin "$pin" --policy "$3" --output json \
        --imds-endpoint "$metadata/$1" --state "$out/$2" --timeout 10s 2>>"$out/join.log") || status=$?
}

local_command() { "$muster" "$@" --data-dir "$out/data"; }

# What the simulator counted of calls to AWS.
calls() { ask GET /_sim/calls; }
# One request to the simulator, by the shell alone: METHOD PATH [BODY].
ask() {
    local host=${metadata#http://} body=${3:-}
    exec 3<>"/dev/tcp/${host%:*}/${host#*:}"
    printf '%s %s HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %s\r\n\r\n%s' \
        "$1" "$2" "${#body}" "$body" >&3
    sed '1,/^\r$/d' <&3
    exec 3>&-
}

allowed=i-0a000000000000001
stranger=i-0b000000000000002
quarantined=i-0c000000000000003
other_tier=i-0d000000000000004
thief=i-0e000000000000005
staying=i-0f000000000000006
falling_back=i-0a000000000000007

say "A simulator plays AWS: instances with signed identity documents, STS and EC2."
"$muster" sim --scenario demo/scenario.toml --out "$out/sim" --output json \
    >"$out/sim.ready" 2>"$out/sim.log" &
metadata=$(first_line "$out/sim.ready" | member "$allowed")
metadata=${metadata%/*}

# A node CA whose key is in a token: `make demo CA=pkcs11`. All else is the same.
server_options=()
case $ca in
builtin) ;;
pkcs11)
    # shellcheck source=demo/softhsm.sh
    . demo/softhsm.sh
    server_options=(--config "$out/server.toml")
    ;;
*) fail "CA is builtin or pkcs11, not $ca" ;;
esac

say "The server: one binary, one data directory, and the allow-lists of policies/."
cp -r policies "$out/policies"
"$muster" server --simulation "$out/sim" --data-dir "$out/data" --policies "$out/policies" \
    "${server_options[@]}" \
    --listen 127.0.0.1:0 --diagnostics-listen 127.0.0.1:0 --output json \
    >"$out/server.ready" 2>"$out/server.log" &
ready=$(first_line "$out/server.ready")
server=$(printf '%s' "$ready" | member join)
pin=$(printf '%s' "$ready" | member pin)
printf 'listens on %s, nodes trust it by %s\n' "$server" "$pin" | show
local_command ca check | show

say "1. An instance of a listed account joins. No secret was given to it."
join "$allowed" node web
[ "$status" = 0 ] || fail "the allowed instance was refused: $answer"
first=$(printf '%s' "$answer" | member serial)
printf '%s\n' "$answer" | member spiffe_id | show
printf 'certificate %s until %s\n' "$first" "$(printf '%s' "$answer" | member not_after)" | show
printf 'AWS was asked: %s\n' "$(calls)" | show

say "2. An instance of an account that nobody listed is refused. It is not told why; you are:"
before=$(calls)
join "$stranger" stranger web
[ "$status" = 1 ] || fail "the stranger got exit status $status: $answer"
printf 'the node sees: %s\n' "$(printf '%s' "$answer" | member code)" | show
local_command audit show "$(printf '%s' "$answer" | member correlation_id)" | show
[ "$(calls)" = "$before" ] || fail "the stranger caused a call: $(calls)"
printf 'and AWS was not asked: the allow-list comes first\n' | show

say "3. A thief shows the first instance's stolen document, with credentials of his own machine."
join "$thief" thief web
[ "$status" = 1 ] || fail "the thief got exit status $status: $answer"
printf 'the thief sees: %s\n' "$(printf '%s' "$answer" | member code)" | show
[ "$(printf '%s' "$answer" | member code)" = PROOF_OTHER_ACCOUNT ] || fail "expected PROOF_OTHER_ACCOUNT"
printf 'a document without the proof of its own instance is worthless\n' | show

say "4. A rule asks for a tag. An instance of the same account without it stays out:"
join "$other_tier" other web
[ "$status" = 1 ] || fail "the instance of another tier got exit status $status: $answer"
local_command audit show "$(printf '%s' "$answer" | member correlation_id)" | show
printf 'somebody with ec2:CreateTags sets the tag, and it joins:\n' | show
ask PUT "/_sim/instances/$other_tier" '{"tags":{"Tier":"web"}}' >/dev/null
join "$other_tier" other web
[ "$status" = 0 ] || fail "with the tag it was refused: $answer"
printf '%s\n' "$answer" | member spiffe_id | show

say "5. Somebody reads the first instance's metadata, credentials too, and comes with his own key."
join "$allowed" intruder web
[ "$status" = 1 ] || fail "the intruder got exit status $status: $answer"
printf 'the intruder sees: %s\n' "$(printf '%s' "$answer" | member code)" | show
printf 'and the audit log has a security event:\n' | show
local_command audit ls --class security --outcome refused | show
events=$(local_command audit ls --class security --outcome refused | grep -c ENROLLMENT_CONFLICT)
[ "$events" = 1 ] || fail "expected one conflict, found $events"

say "6. The first instance lost the reply and asks again: the same certificate, no second one."
join "$allowed" node web
again=$(printf '%s' "$answer" | member serial)
[ "$again" = "$first" ] || fail "expected $first again, got $again"
printf 'certificate %s\n' "$again" | show

say "7. An image on the deny list is refused, whichever policy the node names."
for policy in web batch bastion; do
    join "$quarantined" "quarantined-$policy" "$policy"
    [ "$status" = 1 ] || fail "policy $policy gave exit status $status: $answer"
    id=$(printf '%s' "$answer" | member correlation_id)
    code=$(local_command audit show "$id" --output json | member code)
    printf '%-8s %s\n' "$policy" "$code" | show
    [ "$code" = POLICY_DENIED ] || fail "policy $policy refused with $code"
done

say "8. A policy is added while the server runs, with certificates of 6 s; an agent stays and renews."
sed 's/^  name: web$/  name: short/; s/ttl: 12h/ttl: 6s/' policies/web.yaml >"$out/policies/short.yaml"
"$muster" agent --server "$server" --pin "$pin" --policy short --output json \
    --imds-endpoint "$metadata/$staying" --state "$out/agent" >"$out/agent.ready" 2>"$out/agent.log" &
agent=$!
wait_for 3 renewed "$out/agent.log"
grep renewed "$out/agent.log" | head -n 3 | show
local_command nodes show "$staying" | grep -E 'state|serial|renewed' | show

say "9. No policy admits the document of this instance; a token that it fetches from SSM lets it in."
# A token is no fresh proof, so the floors of policies/guardrails.yaml have to be lowered for it: here they
# are taken away, and the audit log has that.
rm "$out/policies/guardrails.yaml"
cp demo/fallback.yaml "$out/policies/"
ssm=$(member ssm <"$out/sim.ready")
for _ in $(seq 1 300); do
    local_command publications ls --output json >"$out/publications.json" 2>/dev/null || true
    grep -q '"state":"published"' "$out/publications.json" && break
    sleep 0.1
done
local_command publications ls | show
status=0
answer=$(AWS_EC2_METADATA_SERVICE_ENDPOINT="$metadata/$falling_back" "$muster" join \
    --server "$server" --pin "$pin" --policy web --method ec2 --method token --output json \
    --token-source ssm:/muster/simulation.internal/fallback/token \
    --ssm-endpoint "$ssm" --ssm-insecure-endpoint \
    --imds-endpoint "$metadata/$falling_back" --state "$out/fallback" --timeout 20s \
    2>"$out/fallback.log") || status=$?
show <"$out/fallback.log"
[ "$status" = 0 ] || fail "the fallback did not join: $answer"
printf '%s\n' "$answer" | member spiffe_id | show
printf 'both attempts in the audit log, linked by the id that the agent gave itself:\n' | show
boot=$(local_command audit ls --output json | grep '"token":"fallback-' | grep '"outcome":"admitted"' \
    | member boot)
linked=$(local_command audit ls --output json | grep "\"boot\":\"${boot:?}\"")
for outcome in refused admitted; do
    line=$(printf '%s\n' "$linked" | grep "\"outcome\":\"$outcome\"") || fail "no $outcome attempt of boot $boot"
    printf 'boot %s  %s  by %s  %s\n' "$boot" "$outcome" "$(printf '%s' "$line" | member method)" \
        "$(printf '%s' "$line" | member code)" | show
done

say "10. The account is taken out of the policies: its nodes renew no more."
sed -i '/"111122223333"/d' "$out/policies/accounts.yaml"
wait_for 1 'renews these nodes no more' "$out/server.log"
grep 'renews these nodes no more' "$out/server.log" | sed 's/.*policy set/the policy set/' | show
wait_for 1 NOT_ADMITTED "$out/agent.log"
"$muster" agent status --state "$out/agent" | show || true
kill "$agent"

say "11. The audit log is a hash chain, and it is whole."
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
