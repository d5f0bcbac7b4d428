#!/bin/sh
# Ask `mnist_image` with curl alone: sh examples/classify_with_curl.sh IMAGE LABELS
# IMAGE is a whole file (JPEG, PNG ...); LABELS is model_repository/mnist/labels.txt. Prints the three most probable labels.
set -eu
url=${SIGHTLINE_HTTP_URL:-http://localhost:8000}
bytes=$(($(wc -l < "$2") * 4)) # an FP32 for each label
curl --silent --show-error --fail --data-binary "@$1" -H "Inference-Header-Content-Length: 0" "$url/v2/models/mnist_image/infer" \
    | tail -c "$bytes" | od -An -v -w4 -tf4 | paste - "$2" | sort -rg | head -n 3
