"""Find the people of one image, print them, and draw them.

python examples/predict_image.py kdc_core/samples/000000507015.jpg people.jpg
"""

from __future__ import annotations

import sys

import cv2

from kdc_core import Predictor
from kdc_core.show.drawing import draw_people


def main(path: str, output: str) -> None:
    """Print the people of an image and write them drawn over it."""
    image = cv2.imread(path)
    if image is None:
        sys.exit(f"'{path}' is not an image that OpenCV can read")

    # OpenCV reads blue first. A Predictor is opened once and called for every image.
    predictor = Predictor.from_pretrained("kdc_light", image_format="bgr")
    prediction = predictor(image)

    names = predictor.skeleton.keypoints
    threshold = predictor.thresholds.keypoint
    for number, person in enumerate(prediction.persons, start=1):  # best first
        left, top, right, bottom = person.box
        print(
            f"person {number}: score {person.score:.2f}, mask of {person.area} pixels, "
            f"box from ({left:.0f}, {top:.0f}) to ({right:.0f}, {bottom:.0f})"
        )
        for name, (x, y, score) in zip(names, person.keypoints, strict=True):
            if score >= threshold:
                print(f"    {name:15} ({x:.1f}, {y:.1f})  {score:.2f}")

    # `labels` has the number of its person at each pixel, 0 where nobody is.
    people = (prediction.labels > 0).mean()
    print(f"{len(prediction)} people cover {people:.0%} of the image")

    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    drawn = draw_people(rgb, prediction, predictor.skeleton, threshold)
    if not cv2.imwrite(output, cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)):
        sys.exit(f"cannot write '{output}'")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: predict_image.py IMAGE OUTPUT")
    main(sys.argv[1], sys.argv[2])
