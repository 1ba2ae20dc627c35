#!/usr/bin/env bash
# What a GPU is worth most for, within so many minutes, the most useful first: look-up tables and latencies while nothing else
# runs, then the trainings in the queue's order, several at once. Each step goes on where it was, so the script may be called again.
#
#   benchmarks/on_a_gpu.sh MINUTES [JOBS]      (DEVICE=cpu TOY=1 tries all of it, tiny, without a GPU)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
minutes=${1:?usage: benchmarks/on_a_gpu.sh MINUTES [JOBS]} jobs=${2:-16} device=${DEVICE:-cuda} toy=${TOY:-}
width=1 batch=32 rounds=6
[ -n "$toy" ] && width=0.25 batch=2 rounds=1 jobs=1
end=$((SECONDS + 60 * minutes))
left() { echo $(((end - SECONDS) / 60)); }
dcnas() { python -m dcnas.cli "$@"; }

# 1. latencies, at 64 and at 224 pixels
for resolution in 64 224; do
    [ -n "$toy" ] && [ "$resolution" = 224 ] && continue
    table=data/latency/lut-${resolution}px-$device.json
    [ -n "$toy" ] && table=$(mktemp -d)/lut.json
    if [ ! -e "$table" ]; then
        dcnas lut build --resolution "$resolution" --width "$width" --batch "$batch" --device "$device" \
            --rounds "$rounds" --out "$table"
        dcnas lut validate "$table" --device "$device" --networks 30 --rounds "$rounds" || true
    fi
done
if [ -n "$toy" ]; then
    DCNAS_ROOT=$(mktemp -d) python benchmarks/readings.py --device "$device" --resolutions 64 --batches 1 --warmup 0 --passes 1 --rounds 1
else
    python benchmarks/readings.py --device "$device"
fi

# 2. trainings; kernels of several processes run side by side where NVIDIA's MPS is
if [ "$device" = cuda ] && command -v nvidia-cuda-mps-control >/dev/null; then
    nvidia-cuda-mps-control -d || true
    trap 'echo quit | nvidia-cuda-mps-control || true' EXIT
fi
scale=laptop groups="table_2 table_3 section4_searches section3"
[ -n "$toy" ] && scale=smoke groups="table_2"
for group in $groups; do
    [ "$(left)" -ge 1 ] || break
    dcnas queue --scale "$scale" --group "$group" --device "$device" --jobs "$jobs" --minutes "$(left)" || true
done
[ -n "$toy" ] || dcnas collect
