#!/bin/sh
# Enrols a device by openssl and curl alone, into the folder that every SDK takes for its identity and that
# `sealcast device run` keeps fresh. docs/device-folder.md tells what is in it; any EST client (RFC 7030) will do.
#
#   enroll_by_curl.sh FOLDER NAME AUTHORITY KEYS ROOT.pem < TOKEN
#   enroll_by_curl.sh /var/lib/pump pump-4 https://ca.ward:8443 https://ca.ward:8444 root.pem < token
set -eu
umask 077
[ $# -eq 5 ] || { sed -n '5,6s/^# *//p' "$0" >&2; exit 2; }
folder=$1 name=$2 authority=$3 keys=$4 root=$5
[ ! -e "$folder/current" ] || { echo "$folder holds a device already: enrol into another folder" >&2; exit 4; }
read -r token || { echo "give the token on standard input: sealcast authority token" >&2; exit 2; }
place=$folder/credentials/1
mkdir -p "$place"

est() {
    operation=$1
    shift
    curl --silent --show-error --fail --cacert "$root" "$@" "$authority/.well-known/est/$operation" > "$place/answer"
    openssl base64 -d -in "$place/answer" | openssl pkcs7 -inform DER -print_certs
}

# The key never leaves the device.
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$place/key.pem"
openssl req -new -key "$place/key.pem" -subj "/CN=$name" -outform DER | openssl base64 > "$place/request"

# curl reads the token from its input, where no list of processes shows it.
printf 'user = "%s:%s"\n' "$name" "$token" |
    est simpleenroll --config - --header "Content-Type: application/pkcs10" --data-binary "@$place/request" \
        > "$place/certificate.pem"
# Of the site's certificates, those that are no roots: the chain goes with the device's own.
est cacerts > "$place/cacerts"
awk '
    /^subject=/ { subject = substr($0, 9) }
    /^issuer=/ { is_root = substr($0, 8) == subject }
    /BEGIN CERTIFICATE/, /END CERTIFICATE/ { if (!is_root) print }' "$place/cacerts" > "$place/issuers.pem"
cat "$place/issuers.pem" >> "$place/certificate.pem"
cp "$root" "$place/roots.pem"
rm "$place/request" "$place/answer" "$place/cacerts"

# Who the device is, its certificate says.
identity=$(openssl x509 -in "$place/certificate.pem" -noout -ext subjectAltName | sed -n 's/.*sealcast:device://p')
cat > "$place/device.toml" <<END
name = "${identity#*:}"
site = "${identity%%:*}"
authority = "$authority"
keys = "$keys"
END
# The folder holds a device from this moment on.
echo 1 > "$folder/current.new"
mv "$folder/current.new" "$folder/current"
echo "enrolled ${identity#*:} into $folder"
