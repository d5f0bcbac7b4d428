#!/bin/sh
# Ask `mnist_image` with curl alone: sh examples/classify_with_curl.sh IMAGE LABELS
# IMAGE is a whole file (JPEG, PNG ...); LABELS is model_repository/mnist/labels.txt. Prints the three most probable labels, or, on stderr, why
# there are none. Without its Content-Type a large file would end Triton 2.51.
set -eu
url=${SIGHTLINE_HTTP_URL:-http://localhost:8000}
bytes=$(($(wc -l < "$2") * 4)) # an FP32 for each label
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT
curl --silent --show-error --fail-with-body --output "$answer" --data-binary "@$1" -H "Content-Type: application/octet-stream" \
    -H "Inference-Header-Content-Length: 0" "$url/v2/models/mnist_image/infer" || { cat "$answer" >&2; exit 1; }
tail -c "$bytes" "$answer" | od -An -v -w4 -tf4 | paste - "$2" | sort -rg | head -n 3
