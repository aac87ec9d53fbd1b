# From nothing to a message, with what was installed. The last line of output is what the subscriber heard.
set -eu
sealcast authority init site --site ward >/dev/null
mkfifo listening joined
sealcast authority serve site --listen 127.0.0.1:0 --json >listening & authority=$!
trap 'kill $authority' EXIT
read -r line <listening
authority_url=$(expr "$line" : '.*"authority": *"\([^"]*\)"')
keys_url=$(expr "$line" : '.*"keys": *"\([^"]*\)"')
sealcast authority channel add site ward/ecg --group 239.193.7.77 --port 47077 --publish bedside --subscribe '*' >/dev/null
for name in bedside station; do
    sealcast authority token site --device $name |
        sealcast device enroll $name --authority "$authority_url" --keys "$keys_url" --root site/root.pem --name $name \
            --token - >/dev/null
done
sealcast subscribe station ward/ecg --count 1 >heard 2>joined & subscriber=$!
exec 3<joined
until read -r line <&3 && expr "$line" : '.*joined channel' >/dev/null; do :; done
echo "hello, ward" | sealcast publish bedside ward/ecg >/dev/null
wait $subscriber
cat heard
