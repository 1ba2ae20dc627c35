"""What the shipped networks for colour photographs make of photographs, at several noise levels.

200 test photographs of Tiny ImageNet at their own size: the gain over the noisy picture, its least, and
top-1. Twelve larger ones of scikit-image's package, their middle 512 pixels at most: beside BM3D, and
how much of the colours is left. Writes data/photographs.csv; needs the package bm3d and Tiny ImageNet.

    DCNAS_TINY_IMAGENET=FOLDER python benchmarks/photographs.py --bm3d   # without: BM3D's numbers stay
"""

import argparse
from collections.abc import Iterator

import pandas as pd
import skimage.data
import torch
from torch import Tensor

from dcnas.data.images import evaluation_images, load_images
from dcnas.deploy.apply import Scene, apply
from dcnas.deploy.weights import load_network, names
from dcnas.paths import root, write_atomic
from dcnas.study.filters import BM3D
from dcnas.training.metrics import psnr

CSV = root() / "data" / "photographs.csv"
SIGMAS = (0.1, 0.2, 0.4, 0.8)
COUNT, LARGE_SIGMA, LARGE_SIDE = 200, 0.2, 512
LARGE = (  # all photographs in the package whose longer side has 512 pixels or more
    *("astronaut", "coffee", "hubble_deep_field", "immunohistochemistry", "retina", "rocket"),
    *("stereo_motorcycle", "brick", "camera", "grass", "gravel", "moon"),
)


def networks() -> list[str]:
    """Names of the shipped networks for colour photographs."""
    return [name for name in names() if load_network(name).card.get("data") == "tiny-imagenet"]


def chroma_kept(image: Tensor, clean: Tensor) -> float:
    """How much of the colours of (3, H, W) is left, in %: the slope of a pixel's distance from its grey
    over that of the clean one.
    """
    colour, true = (pixels - pixels.mean(0) for pixels in (image, clean))
    return 100 * float((colour * true).sum() / true.square().sum())


def small(name: str, count: int = COUNT, sigmas=SIGMAS) -> Iterator[dict]:
    """A row per noise level: means over test photographs of 64 x 64 pixels."""
    data, network = load_images("tiny-imagenet", 64, progress=False), load_network(name)
    views, labels = evaluation_images(data, "test", 64, count)
    for sigma in sigmas:
        outcomes = [
            apply(network, Scene(f"{n}", view, noise_id=n), sigma) for n, view in enumerate(views)
        ]
        gains = pd.Series([outcome.psnr - outcome.noisy_psnr for outcome in outcomes])
        row = {"pictures": "tiny-imagenet", "count": count, "network": name, "sigma": sigma}
        row |= {"noisy_psnr": sum(outcome.noisy_psnr for outcome in outcomes) / count}
        row |= {"psnr": sum(outcome.psnr for outcome in outcomes) / count}
        row |= {"least_gain": gains.min(), "worse": int((gains < 0).sum())}
        if network.classes:
            answers = torch.stack([outcome.own[0].argmax() for outcome in outcomes])
            row["accuracy"] = 100 * float((answers == labels[:, 0]).float().mean())
        yield row


def large_scene(name: str) -> Scene:
    """A photograph of scikit-image's package, its middle."""
    pixels = getattr(skimage.data, name)()
    pixels = torch.from_numpy((pixels[0] if isinstance(pixels, tuple) else pixels).copy())
    pixels = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
    top, left = (max(0, (side - LARGE_SIDE) // 2) for side in pixels.shape[1:])
    middle = pixels[:, top : top + LARGE_SIDE, left : left + LARGE_SIDE].contiguous()
    return Scene(name, middle, noise_id=LARGE.index(name))


def large(scene: Scene, denoise: str, sigma: float = LARGE_SIGMA) -> dict:
    """A row of a larger photograph, by a network or by "BM3D"."""
    outcome = apply(load_network(networks()[0] if denoise == "BM3D" else denoise), scene, sigma)
    image, clean = outcome.denoised, scene.image
    if denoise == "BM3D":
        image = BM3D(sigma, grey=len(clean) == 1)(outcome.noisy[None])[0]
    image = image.clamp(0, 1)
    row = {"pictures": scene.name, "count": 1, "network": denoise, "sigma": sigma}
    row |= {"noisy_psnr": outcome.noisy_psnr, "psnr": float(psnr(image[None], clean[None]))}
    if len(clean) == 3:
        row["chroma_kept"] = chroma_kept(image, clean)
        row["mean_colour_error"] = 255 * float((image - clean).mean((1, 2)).abs().mean())
    return row


def sentence(table: pd.DataFrame) -> str:
    """What README says of the table."""
    small_ones = table[table["pictures"] == "tiny-imagenet"].set_index(["network", "sigma"])
    unet, joint = (
        small_ones.loc[name] for name in ("unet-b16-tiny-imagenet", "dc-net-b16-tiny-imagenet")
    )
    gains = ", ".join(f"{gain:.1f}" for gain in unet["psnr"] - unet["noisy_psnr"])
    worse = f"{unet['worse'][0.1]:.0f} are worse at 0.1 (DC-Net: {joint['worse'][0.1]:.0f})"
    large_ones = table[table["pictures"] != "tiny-imagenet"].set_index(["network", "pictures"])
    behind = large_ones["psnr"]["BM3D"] - large_ones["psnr"]["unet-b16-tiny-imagenet"]
    left = large_ones.groupby("network")["chroma_kept"].median()
    colours = (
        f"{left['unet-b16-tiny-imagenet']:.0f}% of the colours are left (BM3D: {left['BM3D']:.0f}%)"
    )
    return (
        f"On {COUNT} test photographs the UNet is {gains} dB above the noise at σ = 0.1, 0.2, 0.4, 0.8; "
        f"{worse}, and DC-Net names {joint['accuracy'][0.2]:.0f}% rightly at 0.2. On {len(behind)} "
        f"larger ones at 0.2 the UNet is {behind.mean():.1f} dB behind BM3D ({behind.min():.1f} to "
        f"{behind.max():.1f}), and {colours}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bm3d", action="store_true")
    torch.set_num_threads(1)
    rows = [row for name in networks() for row in small(name)]
    if parser.parse_args().bm3d:
        rows += [large(large_scene(name), "BM3D") for name in LARGE]
    else:
        before = pd.read_csv(CSV)
        rows += before[before["network"] == "BM3D"].to_dict("records")
    rows += [large(large_scene(name), denoise) for denoise in networks() for name in LARGE]
    frame = pd.DataFrame(rows).round({"least_gain": 2, "accuracy": 1, "chroma_kept": 1})
    frame = frame.round({"noisy_psnr": 2, "psnr": 2, "mean_colour_error": 2})
    frame["worse"] = frame["worse"].astype("Int64")
    print(frame.to_string(index=False), sentence(frame), sep="\n")
    write_atomic(CSV, frame.to_csv(index=False, lineterminator="\n"))


if __name__ == "__main__":
    main()
