"""What the book's demo runs on: networks as ONNX, a few test pictures, and ONNX Runtime Web.

The runtime is npm's package `onnxruntime-web`, fetched once into `data/downloads`. Where npm, or what
`dcnas export` needs, is missing, the page says so.
"""

import json
import logging
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from dcnas.deploy.apply import FOR_PHOTOGRAPHS, SETS, Scene, scenes_of
from dcnas.deploy.weights import load_network, names
from dcnas.errors import InputError
from dcnas.paths import downloads_dir, weights_dir

PACKAGE = "onnxruntime-web@1.30.0"
RUNTIME = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
ONNX = Path(__file__).parents[1] / "out" / "onnx"  # exported once, until the weights change
TITLES = {"digits": "two digits", "solar": "solar cells", "photographs": "photographs"}


def runtime() -> list[Path]:
    """The files of ONNX Runtime Web, fetched where they are not there yet; none where that fails."""
    folder = downloads_dir() / PACKAGE
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", PACKAGE]
        try:
            done = subprocess.run(command, cwd=folder.parent, capture_output=True, timeout=90, text=True)
            archive = folder.parent / done.stdout.strip()
            with tarfile.open(archive) as files:
                part = folder.with_suffix(".part")
                for name in RUNTIME:
                    files.extract(f"package/dist/{name}", part, filter="data")
        except (OSError, subprocess.TimeoutExpired, tarfile.TarError, KeyError):
            return []
        (part / "package/dist").rename(folder)
        shutil.rmtree(part)
        archive.unlink()
    return [folder / name for name in RUNTIME]


def exported(name: str) -> Path:
    """A shipped network as ONNX."""
    from dcnas.deploy.export import export_onnx  # onnx is optional

    for chatty in ("onnx_ir", "onnxscript"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    path, weights = ONNX / f"{name}.onnx", weights_dir() / f"{name}.safetensors"
    if not path.exists() or path.stat().st_mtime < weights.stat().st_mtime:
        export_onnx(load_network(name), path)
    return path


def sprite(scenes: list[Scene]) -> Image.Image:
    """Square pictures of one size side by side."""
    tiles = np.concatenate([scene.pixels.permute(1, 2, 0).numpy() for scene in scenes], 1)
    return Image.fromarray(tiles.squeeze())


def stock(folder: Path) -> str:
    """Put all that the page needs into `folder`; what is there, as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    sets, networks = [], []
    for name in SETS:
        try:
            scenes = [make() for make in scenes_of(name).values()]
        except (InputError, OSError):  # not here, and no network to fetch it
            continue
        sprite(scenes).save(folder / f"{name}.png", optimize=True)
        boxes = [scene.boxes[0].tolist() for scene in scenes if scene.boxes is not None]
        facts = {"name": name, "title": TITLES[name], "side": scenes[0].pixels.shape[-1], "boxes": boxes}
        sets.append(facts | {"labels": [scene.labels for scene in scenes]})
    try:
        files = runtime()
        for name in sorted(names(), key=lambda name: name != FOR_PHOTOGRAPHS) if files else ():
            files.append(exported(name))
            network = load_network(name)
            images = "digits" if network.of_digits else network.card["data"]
            facts = {"name": name, "label": network.label, "classes": network.classes}
            facts |= {"resolution": network.card["resolution"], "refusal": network.card.get("refusal")}
            networks.append(facts | {"set": images if images in TITLES else "photographs"})
    except InputError:
        files, networks = [], []
    for file in files:
        shutil.copy(file, folder)
    return json.dumps({"sets": sets, "networks": networks})
