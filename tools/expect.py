"""Find the people of the self-test's images with a shipped model, and keep them in the package.

Run again whenever shipped weights change: python tools/expect.py kdc_light
"""

from __future__ import annotations

import argparse

from kdc_core.inference.model_files import MODELS, find_program
from kdc_core.inference.runtimes.onnxruntime import OnnxRuntime
from kdc_core.inference.selftest import FRAME, find_people_of, write_expected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="shipped model's name")
    name = parser.parse_args().model
    runtime = OnnxRuntime(find_program(name, "fp32"), "cpu", 1)
    predictions = find_people_of(runtime, FRAME)
    path = MODELS / f"{name}.expected.npz"
    write_expected(path, runtime.manifest.weights_sha256, predictions)
    for prediction in predictions:
        print(*(f"{person.score:.2f}" for person in prediction.persons))
    print(f"wrote '{path}', {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
