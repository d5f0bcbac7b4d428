"""The model repository's format: the one place that knows its file names, its limits and its rules.

`layout` holds the names and limits, `config` the typed `config.pbtxt`, `report` what a version says of itself, `read` gives a model's
folder as one frozen value that is read once and handed on. `publish`, `edit` and `history` change a repository; `golden`,
`image_ensemble` and `tensorrt_plan` are what lies beside a version's ONNX file.
"""
