"""A place to drop a picture on or to choose one with, for the demo of the introduction.

ipywidgets' upload button takes no drop, and sends a file in one message: Jupyter's connection breaks at more than 10 MiB, which
a photograph can have. This widget sends it in pieces.
"""

import anywidget
import traitlets

PIECE = 4 * 2**20  # bytes of a message
MOST = 200 * 2**20  # bytes of a file

_ESM = """
function render({ model, el }) {
  const zone = document.createElement("label"), input = document.createElement("input"), text = document.createElement("span");
  const asks = "Drop a picture here, or choose one";
  zone.className = "dcnas-drop";
  input.type = "file";
  input.accept = "image/*";
  text.textContent = asks;
  text.setAttribute("role", "status");
  zone.append(input, text);
  el.append(zone);

  async function send(file) {
    const most = model.get("most"), size = Math.ceil(file.size / 2 ** 20);
    if (file.size > most) {
      text.textContent = `${file.name} has ${size} MiB, at most ${most / 2 ** 20} were expected`;
      return;
    }
    const bytes = await file.arrayBuffer(), piece = model.get("piece");
    let at = 0;
    do {
      const next = at + piece, last = next >= bytes.byteLength;
      model.send({ name: file.name, first: at === 0, last }, undefined, [bytes.slice(at, next)]);
      at = next;
    } while (at < bytes.byteLength);
    text.textContent = `${file.name} (another one: drop or choose)`;
  }

  input.addEventListener("change", async () => {
    if (input.files.length) await send(input.files[0]);
    input.value = "";  // the same file may be chosen again
  });
  for (const name of ["dragenter", "dragover", "dragleave", "drop"])
    zone.addEventListener(name, event => {
      event.preventDefault();  // or the browser would open the file
      event.stopPropagation();
      zone.classList.toggle("dcnas-drop-over", name === "dragenter" || name === "dragover");
    });
  zone.addEventListener("drop", event => {
    const [file] = event.dataTransfer.files;
    if (file) send(file);
    else text.textContent = "That was no file. " + asks;
  });
}
export default { render };
"""

_CSS = """
.dcnas-drop { display: inline-block; position: relative; margin: 2px; padding: 10px 14px; border: 2px dashed #767676;
  border-radius: 6px; cursor: pointer; color: inherit; font-size: 13px; }
.dcnas-drop input { position: absolute; width: 1px; height: 1px; opacity: 0; }
.dcnas-drop:focus-within, .dcnas-drop:hover, .dcnas-drop-over { border-color: #0072b2; border-style: solid; }
"""


class PictureDrop(anywidget.AnyWidget):
    """`value` is the last picture: (its number, name, content), so that the same file twice is a change too; () before any."""

    _esm, _css = _ESM, _CSS
    piece, most = traitlets.Int(PIECE).tag(sync=True), traitlets.Int(MOST).tag(sync=True)
    value = traitlets.Tuple()

    def __init__(self, **options):
        super().__init__(**options)
        self._pieces: list[bytes] = []
        self.on_msg(self._receive)

    def _receive(self, _, message: dict, buffers: list[memoryview]) -> None:
        if message["first"]:
            self._pieces = []
        self._pieces += map(bytes, buffers)
        if message["last"]:
            self.value = (self.value[0] + 1 if self.value else 1, message["name"], b"".join(self._pieces))
            self._pieces = []
