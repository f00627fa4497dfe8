# Part of demo/run.sh: makes a SoftHSM token below $out, and the server's configuration for it.
# shellcheck shell=bash disable=SC2154 # out, say, show and fail are run.sh's

say "A token for the node CA's key: SoftHSM, a PKCS#11 token in files."
command -v softhsm2-util >/dev/null ||
    fail "CA=pkcs11 needs SoftHSM: install the Debian package softhsm2"
module=
for place in /usr/lib/softhsm /usr/lib64/pkcs11 /usr/lib/pkcs11 /usr/local/lib/softhsm; do
    [ -e "$place/libsofthsm2.so" ] && module=$place/libsofthsm2.so && break
done
[ -n "$module" ] || fail "libsofthsm2.so is nowhere: install the Debian package softhsm2"

mkdir -p "$out/tokens"
printf 'directories.tokendir = %s\n' "$PWD/$out/tokens" >"$out/softhsm2.conf"
export SOFTHSM2_CONF=$PWD/$out/softhsm2.conf
pin=$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
(umask 077 && printf '%s\n' "$pin" >"$out/pkcs11-pin")
# A PIN in arguments is good for a demo only: everybody on the machine can read them.
softhsm2-util --init-token --free --label muster --so-pin "$pin" --pin "$pin" >"$out/softhsm.log" 2>&1 ||
    fail "the token was not made: see $out/softhsm.log"
unset pin
cat >"$out/server.toml" <<END
[ca]
backend = "pkcs11"
[ca.pkcs11]
module = "$module"
token_label = "muster"
key_label = "node-ca"
pin_file = "$out/pkcs11-pin"
create_key = true
END
printf 'the module is %s\n' "$module" | show
