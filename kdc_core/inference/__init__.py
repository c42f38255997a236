"""A model at work: the program a runtime executes, its ONNX file, and the Predictor."""
