#!/bin/sh
# Train the next kdc_light from kdc_refined, on two cores in the background; the same call goes on.
#
#   tools/train_light.sh COCO_PERSON KDC_REFINED RUN [kdc train's options]
#
# COCO_PERSON is the folder of the data set's parts. Every eighth image of its part `train` is held
# out in RUN/data: choose by those, never by val. Half of the samples are of the part with masks.
# The rates are untried: docs/results.md says what higher ones did.
set -eu
parts=$1 start=$2 run=$3
shift 3
python=${PYTHON:-python3}
[ -f "$run/data/train.json" ] || "$python" "$(dirname "$0")/hold_out.py" "$parts/train.json.gz" 8 "$run/data"
exec "$python" -m kdc_core train kdc_light --start "$start" --output "$run/run" \
    --data "$run/data/train.json" --data "$parts/train_keypoints_only.json.gz" \
    --data "$parts/train_rest.json.gz" --data "$parts/train_small.json.gz" \
    --data "$parts/train_misc.json.gz" --set 'train.mixture=[10, 4, 3.5, 2.3, 0.2]' \
    --set network.detail=true --set network.refine=true --set 'train.train=[posenet, segnet]' \
    --set train.heat=gaussian --set train.weight_score=2 --set train.weight_instance=1 \
    --set 'train.longer_side=[240, 800]' --set train.rotate_degrees=15 --set train.paste=0.3 \
    --set train.rate=1e-4 --set train.rate_posenet=1e-5 --set train.accumulate=4 --set train.steps=600 \
    --set train.workers=0 "$@"
