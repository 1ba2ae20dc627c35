"""Denoises a picture with a network that `dcnas export` wrote, and says what it shows.

    python board.py NETWORK.onnx PICTURE [OUT.png]
    python board.py NETWORK.onnx camera

Needs numpy, Pillow and onnxruntime; a camera (until Esc) needs OpenCV too. What it must know about the
network is in the file's metadata.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def run(session, image, facts, output):
    """One output, for a picture of any size; digits are looked for in its upper left corner."""
    low, high = json.loads(facts["input_range"])
    stride, side = json.loads(facts["stride"]), json.loads(facts["label_pixels"])
    noisy, boxes = session.get_inputs()[0], session.get_inputs()[1:]
    image = image.convert("L" if noisy.shape[1] == 1 else "RGB")
    pixels = np.asarray(image, np.float32).reshape(image.height, image.width, -1)
    pad = (0, -image.height % stride), (0, -image.width % stride), (0, 0)  # below and on the right
    pixels = np.pad(pixels / 255 * (high - low) + low, pad, json.loads(facts["padding"])["mode"])
    feed = {noisy.name: pixels.transpose(2, 0, 1)[None]}
    feed.update({x.name: np.array([[[0, 0, side, side]]]) for x in boxes})
    answer = session.run([output], feed)[0][0]
    if output == "logits":
        return answer.reshape(-1)
    answer = (answer[:, : image.height, : image.width].clip(low, high) - low) / (high - low) * 255
    return Image.fromarray(answer.round().astype(np.uint8).transpose(1, 2, 0).squeeze())


def denoise(session, image):
    """The denoised picture (the picture, where the network only classifies) and its label."""
    facts = session.get_modelmeta().custom_metadata_map
    names, classes = [x.name for x in session.get_outputs()], json.loads(facts["classes"])
    denoised, label = (run(session, image, facts, "denoised") if "denoised" in names else image), ""
    if "logits" in names:  # of its middle square, at the size that it was trained at
        square = ImageOps.fit(image, (json.loads(facts["label_pixels"]),) * 2, Image.BILINEAR)
        logits = run(session, square, facts, "logits")
        label = f"{classes[logits.argmax()]} ({1 / np.exp(logits - logits.max()).sum():.0%})"
    return denoised, label


def main(network, source, out="denoised.png"):
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    if source != "camera":
        denoised, label = denoise(session, ImageOps.exif_transpose(Image.open(source)))
        denoised.save(out)
        print(f"Wrote {out}{label and ': '}{label}")
        return
    import cv2

    camera = cv2.VideoCapture(0)
    while cv2.waitKey(1) != 27 and (frame := camera.read()[1]) is not None:
        denoised, label = denoise(session, Image.fromarray(frame[..., ::-1]))
        shown = np.array(denoised.convert("RGB"))[..., ::-1].copy()
        cv2.putText(shown, label, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255))
        cv2.imshow("denoised", shown)


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) in (3, 4) else sys.exit(__doc__)
