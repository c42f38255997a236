#!/bin/sh
# The fifth stage of kdc_light (docs/kdc_light.md): from kdc_refined, 286 thousand samples on one GPU, eight minutes.
#
#   tools/train_light.sh COCO_PERSON KDC_REFINED RUN [kdc train's options]
#
# COCO_PERSON is the folder of the data set's parts. Every eighth image of its part `train` is held
# out in RUN/data: choose by those, never by val. People of the other parts get the masks that
# KDC_REFINED gives them for their annotated keypoints (RUN/data too).
# On a CPU: --device cpu --set train.precision=32 --set train.batch=8, and lower rates.
set -eu
parts=$1 start=$2 run=$3
shift 3
python=${PYTHON:-python3} tools=$(dirname "$0")
data=$run/data
[ -f "$data/train.json" ] || "$python" "$tools/hold_out.py" "$parts/train.json.gz" 8 "$data"
masks() {
    [ -f "$data/$1.json" ] ||
        "$python" "$tools/pseudo_masks.py" "$start" "$parts/$1.json.gz" "$data/$1.json" --scales "$2"
}
masks train_keypoints_only 704,512,352
masks train_rest 512,384
masks train_small 416,320
exec "$python" -m kdc_core train kdc_light --start "$start" --output "$run/run" \
    --data "$data/train.json" --data "$data/train_keypoints_only.json" \
    --data "$data/train_rest.json" --data "$data/train_small.json" \
    --data "$parts/train_misc.json.gz" --set 'train.mixture=[8, 4.5, 4.5, 2.5, 0.2]' \
    --set 'train.train=[posenet, segnet]' --set train.batch=128 --set train.precision=bf16 \
    --set train.rate=2e-3 --set train.rate_posenet=2.5e-4 --set train.steps=2500 \
    --set train.workers=10 "$@"
