#!/bin/sh
# The demo of compose.yaml and compose.cluster.yaml: s3dlio-cli, with the proxy (or the cluster's front) as its endpoint,
# writes an object, reads it cold and warm, and compares. Ends with 0 when every byte was right.
set -eu
dir=$(mktemp -d "${TMPDIR:-$HOME}/demo.XXXXXX")
trap 'rm -rf "$dir"' EXIT
for _ in 1 2 3 4 5 6 7 8 9 10; do s3dlio-cli health && break; sleep 1; done

s3dlio-cli create-bucket s3://demo || echo "(the bucket is there from an earlier run)"
head -c 4000000 /dev/urandom >"$dir/object"
s3dlio-cli upload "$dir/object" s3://demo/
for pass in cold warm; do
    echo "== $pass"
    rm -f "$dir/got"
    s3dlio-cli get s3://demo/object "$dir/got"
    cmp "$dir/object" "$dir/got"
done
s3dlio-cli ls s3://demo/
echo "== the same bytes, cold and warm"
