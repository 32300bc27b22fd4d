"""Export a trained model for other programs: encoder, decoder and sampler, checked against torch on the test set."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import installed  # noqa: F401

from vae.common.files import read_json, relative, write_json
from vae.entry import programs

if TYPE_CHECKING:
    from torch import Tensor

    from vae.data.loader import BatchLoader
    from vae.use.parity import Parity, Runnable
    from vae.use.portable import Program

METADATA = "metadata.json"

EXAMPLES = """
examples:
  python scripts/export.py outputs/runs/2030-01-01/12-00-00-000000
  python scripts/export.py outputs/runs/2030-01-01/12-00-00-000000 --int8
  python scripts/export.py best.ckpt --to safetensors --out weights

  encoder   images (batch, channels, height, width) from 0 to 1 → mean and scale, or scale_tril, of q(z|x);
            of several levels also takes noise (batch, numbers), and returns the draw z that these are along
  decoder   z (batch, latent_dim) → images, which are E[x|z], and logits, the parameters of p(x|z)
  sampler   noise (batch, latent_dim) from N(0, I) → images of draws from the prior; where that is a mixture,
            choice (batch,), uniform in [0, 1), selects its components
  prior     codes (batch, length), row by row → logits of each given those before: of a model of codes, whose encoder
            gives codes (batch, height, width) and their vectors z, and whose decoder takes the codes
  model     the weights for vae.load, as .safetensors or, beside torch's programs, as .ckpt

The programs of a conditional model also take labels (batch,), the positions of the classes.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Export what the command line asks for."""
    programs.run(export, _parser().parse_args(arguments))


def export(run: Path, to: str, int8: bool, out: Path | None, data_root: str | None, trust: bool) -> None:
    """Write the files, read them again, and print what they compute beside what torch does."""
    from vae.data.loader import evaluation_loader
    from vae.model import checkpoints, restored
    from vae.use.export import metadata_of, refuse
    from vae.use.parity import parity
    from vae.use.portable import programs_of
    from vae.use.trained import Trained

    refuse(to, int8)
    out = out or programs.inside(run) / "export"
    checkpoint = checkpoints.read(file := checkpoints.file_of(run))
    model = Trained(restored.model_of(checkpoint, trust), checkpoint["vae"])
    source, data = restored.data_of(checkpoint["vae"], data_root, trust)
    metadata = metadata_of(checkpoint, checkpoints.folder_of(file).resolve().name)
    ours, left_out = programs_of(model)

    theirs: dict[str, Runnable] = {}
    files: dict[str, Any] = {}
    if to != "onnx":
        theirs, files = _write_weights(checkpoint, out, to, metadata, trust)
    if to != "safetensors":
        theirs, programs_files, refused = _write_programs(ours, out, to, int8, metadata)
        files |= programs_files
        left_out |= refused
    own = {name: program.module for name, program in ours.items()}
    with programs.bar("comparing", len(data.test)) as progress:
        found = parity(model, own, theirs, _counted(evaluation_loader(source, data.test, "test"), progress))
    _describe(out / METADATA, metadata, files, {to + "_int8" * int8: found._asdict()})
    print(_report(data.name, found))
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


def _wrote(path: Path, program: Program | None = None) -> dict[str, Any]:
    """Says so, and what is in the file."""
    from vae.use.export import signature

    told = signature(program) if program else {}
    takes = f"{', '.join(told['inputs'])} → {', '.join(told['outputs'])}" if told else "for vae.load"
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
        f"{'total, nats per image':<32}{found.torch:>12.4f}{found.exported:>12.4f}{round(found.loss, 4) + 0.0:>+12.4f}",
        *(f"{f'largest error of {name}':<32}{'':>24}{error:>12.1e}" for name, error in found.errors.items()),
    ]
    rule = "─" * len(lines[0])
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def _describe(file: Path, metadata: Mapping[str, Any], files: Mapping[str, Any], checks: Mapping[str, Any]) -> None:
    """Write metadata.json; what it says of other formats of the same model is kept."""
    before = read_json(file) or {}
    if any(before.get(key) != value for key, value in json.loads(json.dumps(metadata)).items()):
        before = {}
    merged = {key: before.get(key, {}) | now for key, now in (("files", files), ("parity", checks))}
    write_json(file, {**metadata, **merged})
    print(relative(file))


def _parser() -> argparse.ArgumentParser:
    parser = programs.described("export.py", __doc__, EXAMPLES)
    parser.add_argument("run", type=Path, help="the folder of a run (its reported weights) or a checkpoint file")
    parser.add_argument("--to", choices=("onnx", "torch", "safetensors"), default="onnx", help="the format (onnx)")
    parser.add_argument(
        "--int8", action="store_true", help="round weights to 8 bits: a quarter of the size (onnx only)"
    )
    parser.add_argument("--out", type=Path, help="folder to write to (the run's export/)")
    parser.add_argument("--data-root", help="where the data are, if not where they were")
    parser.add_argument("--trust", action="store_true", help="build classes that are not of this program")
    return parser


if __name__ == "__main__":
    main()
