#!/bin/sh
# Whether a prompt and a seed still give the same bytes.
#
#   bytes.sh compare FILE    exit code 4 if the sha256 is not the one in FILE
#   bytes.sh record FILE     write it there, in place of this machine's line
#
# A line of FILE: sha256, version of torch, processor. MODEL and VIDGEN are read from the environment.
set -eu
VIDGEN=${VIDGEN:-vidgen}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Without the log, which names the version of vidgen: a new version may well make the same bytes.
make_clip() {
    $VIDGEN generate "a red ball bounces on sand ground" --seed 7 --passes 0 --scale 1 \
        --model "${MODEL:-world}" --device cpu -q -o "$work/$1.vgs"
    $VIDGEN convert "$work/$1.vgs" --no-provenance -q -o "$work/$1.bare.vgs"
}
make_clip first
sum=$(sha256sum < "$work/first.bare.vgs" | cut -d ' ' -f 1)
machine=$($VIDGEN log "$work/first.vgs" --json -q |
    sed -n 's/^ *"\(torch\|device_name\)": "\(.*\)",*$/\1 \2/p' | sort -ru | cut -d ' ' -f 2- |
    paste -sd ' ' -)
# Lines of FILE, which need not be there: 64 digits, two spaces, machine.
lines() { [ ! -e "$2" ] || awk -v machine="$machine" "(substr(\$0, 67) == machine) == $1" "$2"; }
recorded=$(lines 1 "$2" | cut -d ' ' -f 1)

case $1 in
record)
    { lines 0 "$2"; echo "$sum  $machine"; } | sort > "$work/new"
    cat "$work/new" > "$2"
    echo "wrote $2"
    ;;
compare)
    if [ -z "$recorded" ]; then
        echo "bytes: $2 has no line for torch and processor \`$machine\`: two runs are compared with" \
            "each other instead; \`make baseline\` writes the line"
        make_clip second
        cmp "$work/first.bare.vgs" "$work/second.bare.vgs" > "$work/where" || {
            echo "bytes: two runs of the same prompt and seed differ" >&2
            exit 4
        }
    elif [ "$sum" != "$recorded" ]; then
        echo "bytes: sha256 is $(echo "$sum" | cut -c 1-12)…, in $2 it is" \
            "$(echo "$recorded" | cut -c 1-12)…: another model, or other arithmetic" >&2
        exit 4
    else
        echo "bytes: as recorded for $machine"
    fi
    ;;
*)
    echo "bytes.sh compare FILE, or bytes.sh record FILE" >&2
    exit 2
    ;;
esac
