"""Export a trained model for other programs: encoder, decoder and sampler, checked against torch on the test set."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import installed  # noqa: F401

from vae.common.files import read_json, relative, write_json
from vae.common.types import TERMS
from vae.entry import programs

if TYPE_CHECKING:
    from torch import Tensor

    from vae.data.loader import BatchLoader
    from vae.use.parity import Parity, Runnable
    from vae.use.portable import Program
    from vae.use.trained import Trained

METADATA = "metadata.json"
FOUND = ("files", "parity", "cortex")  # in it, besides what the model is
CALIBRATING = 1000  # training images, by which activations in 8 bits are scaled
EMULATED = 5  # test images

EXAMPLES = """
examples:
  python scripts/export.py outputs/runs/2030-01-01/12-00-00-000000
  python scripts/export.py outputs/runs/2030-01-01/12-00-00-000000 --int8
  python scripts/export.py best.ckpt --to safetensors --out weights
  python scripts/export.py outputs/runs/2030-01-01/12-00-00-000000 --to c --int8

  encoder   images (batch, channels, height, width) from 0 to 1 → mean and scale, or scale_tril, of q(z|x);
            of several levels also takes noise (batch, numbers), and returns the draw z that these are along
  decoder   z (batch, latent_dim) → images, which are E[x|z], and logits, the parameters of p(x|z)
  sampler   noise (batch, latent_dim) from N(0, I) → images of draws from the prior; where that is a mixture,
            choice (batch,), uniform in [0, 1), selects its components
  prior     codes (batch, length), row by row → logits of each given those before: of a model of codes, whose encoder
            gives codes (batch, height, width) and their vectors z, and whose decoder takes the codes
  model     the weights for vae.load, as .safetensors or, beside torch's programs, as .ckpt

The programs of a conditional model also take labels (batch,), the positions of the classes. C is one file with its
header: images are bytes there, --int8 is of activations, too, and the header says how to call it.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Export what the command line asks for."""
    programs.run(export, _parser().parse_args(arguments))


def export(run: Path, to: str, int8: bool, out: Path | None, data_root: str | None, trust: bool) -> None:
    """Write the files, read them again, and print what they compute beside what torch does."""
    from vae.data.loader import evaluation_loader
    from vae.model import checkpoints, restored
    from vae.use.c99 import compiled, cortex
    from vae.use.c99.layers import refuse_other_models
    from vae.use.export import metadata_of, refuse
    from vae.use.parity import parity
    from vae.use.portable import programs_of
    from vae.use.trained import Trained

    refuse(to, int8)
    out = out or programs.inside(run) / "export"
    checkpoint = checkpoints.read(file := checkpoints.file_of(run))
    model = Trained(restored.model_of(checkpoint, trust), checkpoint["vae"])
    if to == "c":
        refuse_other_models(model)
    source, data = restored.data_of(checkpoint["vae"], data_root, trust)
    metadata = metadata_of(checkpoint, checkpoints.folder_of(file).resolve().name)
    ours, left_out = programs_of(model)

    theirs: dict[str, Runnable] = {}
    files: dict[str, Any] = {}
    if to == "c":
        calibrating = data.train.some(CALIBRATING).images / 255 if int8 else None
        theirs, files = _write_c(model, out / f"model{'_int8' * int8}.c", metadata, calibrating)
    if to in ("torch", "safetensors"):
        theirs, files = _write_weights(checkpoint, out, to, metadata, trust)
    if to in ("torch", "onnx"):
        theirs, programs_files, refused = _write_programs(ours, out, to, int8, metadata)
        files |= programs_files
        left_out |= refused
    checks: dict[str, Any] = {}
    if theirs:
        own = {name: program.module for name, program in ours.items()}
        with programs.bar("comparing", len(data.test)) as progress:
            found = parity(model, own, theirs, _counted(evaluation_loader(source, data.test, "test"), progress))
        checks["parity"] = {to + "_int8" * int8: found._asdict()}
        print(_report(data.name, found))
    else:
        left_out["comparison with torch"] = f"there is no C compiler: {compiled.COMPILER}"
    if to == "c" and (missing := cortex.missing_tools()):
        left_out["Cortex-M"] = f"not installed: {', '.join(missing)}"
    elif to == "c":
        code = out / next(iter(files))
        try:
            table = cortex.measure(code, data.test.some(EMULATED).images.numpy(), model.latent_dim)
        except ValueError as error:  # the files are written, and right without it
            left_out["Cortex-M"] = str(error)
        else:
            checks["cortex"] = {code.name: table.rows}
            print(table.text())
    _describe(out / METADATA, metadata, {"files": files, **checks})
    for name, why in left_out.items():
        print(f"left out: {name} ({why})")


def _write_weights(
    checkpoint: Mapping[str, Any], out: Path, to: str, metadata: Mapping[str, Any], trust: bool
) -> tuple[dict[str, Runnable], dict[str, Any]]:
    """What the model that was read again computes, and what the file is."""
    from vae.model.checkpoints import write_weights
    from vae.use.export import read_model, texts

    path = out / ("model.safetensors" if to == "safetensors" else "model.ckpt")
    write_weights(checkpoint, path, texts(metadata))
    return read_model(path, trust), _wrote(path)


def _write_c(
    model: Trained, path: Path, metadata: Mapping[str, Any], images: Tensor | None
) -> tuple[dict[str, Runnable], dict[str, Any]]:
    """What the compiled program computes, where there is a compiler, and what the files are."""
    from vae.use.c99.compiled import is_possible, runnables
    from vae.use.export import write_c

    made = write_c(model, path, metadata, images)
    sizes = f"{made.constants:,} bytes of constants, {made.ram:,} bytes of buffers (VAE_RAM)"
    made_of = ", ".join(f"{name} {count:,}" for name, count in made.products.items())
    files = _wrote(path, use=sizes) | _wrote(path.with_suffix(".h"), use="how to call it")
    files[path.name] |= {"constants": made.constants, "ram": made.ram, "multiply_adds": made.products}
    print(f"multiply-adds of an image: {made_of}")
    theirs = runnables(path, model.shape, model.latent_dim) if is_possible() else {}
    return theirs, files


def _write_programs(
    ours: Mapping[str, Program], out: Path, to: str, int8: bool, metadata: Mapping[str, Any]
) -> tuple[dict[str, Runnable], dict[str, Any], dict[str, str]]:
    """What the programs that were read again compute, what their files are, and why there is none of the sampler."""
    from vae.use.export import UnfollowedError, write

    theirs: dict[str, Runnable] = {}
    files: dict[str, Any] = {}
    for name, program in ours.items():
        path = out / f"{name}{'_int8' * int8}.{'onnx' if to == 'onnx' else 'pt2'}"
        try:
            theirs[name] = write(program, path, metadata, int8)
        except UnfollowedError as reason:
            if name == "sampler":
                return theirs, files, {name: str(reason)}
            raise ValueError(f"{name}: {reason}") from reason
        files |= _wrote(path, program)
    return theirs, files, {}


def _wrote(path: Path, program: Program | None = None, use: str = "for vae.load") -> dict[str, Any]:
    """Says so, and what is in the file."""
    from vae.use.export import signature

    told = signature(program) if program else {}
    takes = f"{', '.join(told['inputs'])} → {', '.join(told['outputs'])}" if told else use
    size = path.stat().st_size
    width = len(str(relative(path.parent))) + 20
    print(f"{relative(path)!s:<{width}}{size / 1e6:>8.3f} MB   {takes}")
    return {path.name: {"bytes": size, **told}}


def _counted(batches: BatchLoader, progress: Any) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels in batches:
        yield images, labels
        progress.update(len(images))


def _report(data: str, found: Parity) -> str:
    """A table of totals and errors."""
    lines = [
        f"{f'{found.images:,} test images of {data}':<32}{'torch':>12}{'files':>12}{'difference':>12}",
        *(
            f"{f'{term}, nats per image':<32}{found.torch[term]:>12.4f}{found.exported[term]:>12.4f}"
            f"{round(found.loss[term], 4) + 0.0:>+12.4f}"
            for term in TERMS
        ),
        *(f"{f'largest error of {name}':<32}{'':>24}{error:>12.1e}" for name, error in found.errors.items()),
    ]
    rule = "─" * len(lines[0])
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def _describe(file: Path, metadata: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]) -> None:
    """Write metadata.json with what was found; what it says of other formats of the same model is kept."""
    before = read_json(file) or {}
    if any(before.get(key) != value for key, value in json.loads(json.dumps(metadata)).items()):
        before = {}
    merged = {key: before.get(key, {}) | found.get(key, {}) for key in FOUND if key in {*before, *found}}
    write_json(file, {**metadata, **merged})
    print(relative(file))


def _parser() -> argparse.ArgumentParser:
    parser = programs.described("export.py", __doc__, EXAMPLES)
    parser.add_argument("run", type=Path, help="the folder of a run (its reported weights) or a checkpoint file")
    formats = ("onnx", "torch", "safetensors", "c")
    parser.add_argument("--to", choices=formats, default="onnx", help="the format (onnx)")
    parser.add_argument("--int8", action="store_true", help="round weights to 8 bits: a quarter of the size (onnx, c)")
    parser.add_argument("--out", type=Path, help="folder to write to (the run's export/)")
    parser.add_argument("--data-root", help="where the data are, if not where they were")
    parser.add_argument("--trust", action="store_true", help="build classes that are not of this program")
    return parser


if __name__ == "__main__":
    main()
