"""A trained model in files for other programs: ONNX, exported torch programs, safetensors, C."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import vae
from vae.common.files import replacing
from vae.settings.config import kind
from vae.settings.errors import require_packages
from vae.use.c99.layers import networks_of
from vae.use.c99.source import CModel, c_model
from vae.use.parity import Runnable
from vae.use.portable import Program, Tensors, programs_of
from vae.use.quantise import quantise
from vae.use.trained import Trained, load

PACKAGES = {  # for each format
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "torch": (),
    "safetensors": ("safetensors",),
    "c": (),
}
OPSET = 18  # of ONNX; what torch writes without a conversion, and runtimes of the last years read

Metadata = Mapping[str, Any]


class UnfollowedError(ValueError):
    """A program that torch cannot turn into one for others."""


def refuse(to: str, int8: bool) -> None:
    """Refuse what cannot be had, before any work."""
    if int8 and to not in ("onnx", "c"):
        raise ValueError(f"--int8: must be used with --to onnx or c, not with --to {to}, whose weights stay as trained")
    require_packages("export", *PACKAGES[to])


def metadata_of(checkpoint: Mapping[str, Any], run: str) -> dict[str, Any]:
    """What every file says of the model, in plain types."""
    about = checkpoint["vae"]
    config = about["config"]
    return {
        "run": run,
        "parent": config.get("parent") or config["objective"].get("teacher"),
        "epoch": checkpoint["epoch"] + 1,
        "data": about["data"],
        "shape": about["shape"],
        "classes": about["classes"],
        "conditional": config["conditional"],
        "latent_dim": config["latent_dim"],
        **{group: kind(config[group]) for group in ("backbone", "prior", "posterior", "likelihood")},
        "versions": {"vae": vae.__version__, "torch": torch.__version__},
        "config": config,
    }


def signature(program: Program) -> dict[str, dict[str, list[str | int]]]:
    """The shapes of a program's inputs and outputs by their names."""
    sides = {"inputs": program.inputs, "outputs": program.outputs}
    return {
        side: {name: ["batch", *value.shape[1:]] for name, value in values.items()} for side, values in sides.items()
    }


def write(program: Program, path: Path, metadata: Metadata, int8: bool = False) -> Runnable:
    """Write the program in the format that the file's name says; returns what is read from there again."""
    if path.suffix == ".onnx":
        write_onnx(program, path, metadata, int8)
        return read_onnx(path)
    write_torch(program, path, metadata)
    return read_torch(path)


def write_onnx(program: Program, path: Path, metadata: Metadata, int8: bool = False) -> None:
    """An ONNX program for any size of batch, with the metadata as its properties."""
    import onnx

    with _followed():
        made = torch.onnx.export(
            program.module,
            kwargs=program.inputs,
            input_names=list(program.inputs),
            output_names=list(program.outputs),
            dynamic_shapes={name: {0: "batch"} for name in program.inputs},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert made is not None
    model = made.model_proto
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")  # torch's notes for debugging, such as stack traces
    if int8:
        quantise(model)
    onnx.helper.set_model_props(model, texts(metadata))
    onnx.checker.check_model(model, full_check=True)
    with replacing(path) as temporary:
        onnx.save(model, temporary)


def read_onnx(path: Path) -> Runnable:
    """The program in an ONNX file, run on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(**inputs: Tensor) -> Tensors:
        found = session.run(names, {name: value.numpy() for name, value in inputs.items()})
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}

    return run


def write_torch(program: Program, path: Path, metadata: Metadata) -> None:
    """A program for any size of batch that `torch.export.load` reads, with the metadata beside it in the archive."""
    batch = torch.export.Dim("batch")
    with _followed():
        made = torch.export.export(
            program.module, (), program.inputs, dynamic_shapes={name: {0: batch} for name in program.inputs}
        )
    for node in made.graph.nodes:
        node.meta.pop("stack_trace", None)  # with the paths of this machine
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of views, such as a prior's parameters are, which come back as they were
        torch.export.save(made, temporary, extra_files={"metadata.json": json.dumps(metadata)})


def read_torch(path: Path) -> Runnable:
    """The program in such a file."""
    return torch.export.load(path).module()


def write_c(model: Trained, path: Path, metadata: Metadata, images: Tensor | None) -> CModel:
    """The model as a C file with its header beside it; in 8 bits where there are images to calibrate these by."""
    bits = "floats" if images is None else "8 bits"
    title = f"{metadata['run']}, trained on {metadata['data']}: encoder, decoder and sampler with weights in {bits}."
    made = c_model(model, networks_of(model, images), title.replace("*/", "* /"), path.with_suffix(".h").name)
    for file, text in ((path, made.code), (path.with_suffix(".h"), made.header)):
        with replacing(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return made


def read_model(path: Path, trust: bool = False) -> dict[str, Runnable]:
    """The programs of the model in a file that `vae.load` reads."""
    return {name: program.module for name, program in programs_of(load(path, trust))[0].items()}


def texts(metadata: Metadata) -> dict[str, str]:
    """The metadata for files that keep texts only: texts as they are, all else as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}


@contextmanager
def _followed() -> Iterator[None]:
    """While torch follows a program: errors in one line, and no word about packages that nobody needs here."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # a foreign class can fail in any way
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnfollowedError(f"torch cannot follow it: {reason}") from error
    finally:
        log.setLevel(level)
