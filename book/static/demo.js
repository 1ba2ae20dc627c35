// The demo and its game: the study's networks run here, by ONNX Runtime Web; nothing leaves the computer.
(() => {
  const { sets, networks } = JSON.parse(document.getElementById("stock").textContent);
  const MOST_SIDE = 256, STRIDE = 32, ROUNDS = 10, GAME_SIGMA = 0.6;  // pixels; rows and columns of a network

  function html(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes))
      name.startsWith("on") ? element.addEventListener(name.slice(2), value) : element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  const demo = document.getElementById("demo"), game = document.getElementById("game");
  if (!networks.length || !window.ort) {
    const command = html("code", {}, "make demo");
    demo.append(html("p", { role: "status" }, "This copy of the book was made without ONNX Runtime Web (from npm) or ",
      "without what an export needs, so no network can run in this page; ", command, " in a checkout runs them."));
    return;
  }
  ort.env.wasm.wasmPaths = new URL("_static/demo/", location.href).href;
  ort.env.wasm.numThreads = 1;

  // ---- pictures: {title, side, width, height, channels, pixels (C, H, W) in [0, 1], labels, boxes}

  function pictureOf(canvas, grey, facts) {
    const { width, height } = canvas, { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
    const channels = grey ? 1 : 3, pixels = new Float32Array(channels * width * height);
    for (let channel = 0; channel < channels; channel++)
      for (let n = 0; n < width * height; n++) pixels[channel * width * height + n] = data[4 * n + channel] / 255;
    return { width, height, channels, pixels, labels: [], boxes: [], ...facts };
  }

  function cut(image, x, y, side, width = side, height = side) {
    const canvas = html("canvas", { width, height });
    canvas.getContext("2d").drawImage(image, x, y, side * width / Math.max(width, height),
      side * height / Math.max(width, height), 0, 0, width, height);
    return canvas;
  }

  async function load(address) {
    const image = new Image();
    image.src = address;
    await image.decode();
    return image;
  }

  async function stockPictures() {
    const all = [];
    for (const set of sets) {
      const image = await load(`_static/demo/${set.name}.png`);
      for (let n = 0; n * set.side < image.width; n++) {
        const facts = { id: `${set.name}-${n}`, set: set.name, labels: set.labels[n], boxes: set.boxes[n] ?? [] };
        const title = `${set.title}, ${n + 1}`, canvas = cut(image, n * set.side, 0, set.side);
        all.push({ ...pictureOf(canvas, set.name === "digits", facts), title, canvas });
      }
    }
    return all;
  }

  async function ownPicture(file) {
    const bitmap = await createImageBitmap(file);  // throws for what is no picture
    const scale = Math.min(1, MOST_SIDE / Math.max(bitmap.width, bitmap.height));
    const width = Math.max(1, Math.round(bitmap.width * scale)), height = Math.max(1, Math.round(bitmap.height * scale));
    const canvas = html("canvas", { width, height });
    canvas.getContext("2d").drawImage(bitmap, 0, 0, width, height);
    const title = file.name + (scale < 1 ? `, scaled to ${width} × ${height}` : "");
    const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
    const grey = data.every((value, n) => n % 4 === 3 || value === data[n - n % 4]);
    return { ...pictureOf(canvas, grey, { id: "own", set: "own" }), title, canvas };
  }

  function paint(canvas, picture, pixels) {
    const { width, height, channels } = picture, area = width * height;
    Object.assign(canvas, { width, height });
    const image = new ImageData(width, height);
    for (let n = 0; n < area; n++) {
      for (let channel = 0; channel < 3; channel++)
        image.data[4 * n + channel] = 255 * pixels[(channels === 1 ? 0 : channel) * area + n];  // rounded, and limited
      image.data[4 * n + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  // The same noise at every call: Mulberry32 and the Box-Muller transform.
  function noiseLike(pixels, seed) {
    const noise = new Float32Array(pixels.length);
    const uniform = () => {
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
    for (let n = 0; n < noise.length; n++)
      noise[n] = Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    return noise;
  }

  // By the content: no two pictures share a pattern.
  function seedOf(pixels) {
    let seed = 0x811c9dc5;  // FNV-1a
    for (const value of pixels) seed = Math.imul(seed ^ Math.round(255 * value), 0x01000193);
    return seed;
  }

  function withNoise(picture, sigma) {
    picture.noise ??= noiseLike(picture.pixels, seedOf(picture.pixels));
    return picture.pixels.map((value, n) => value + sigma * picture.noise[n]);
  }

  function psnr(pixels, clean) {
    let sum = 0;
    for (let n = 0; n < clean.length; n++) sum += (Math.min(1, Math.max(0, pixels[n])) - clean[n]) ** 2;
    return -10 * Math.log10(sum / clean.length);
  }

  // ---- networks

  const sessions = {};
  let running = Promise.resolve();  // one pass at a time

  // Denoised pixels, probabilities of each object, and the ms of the pass.
  function answer(network, picture, noisy) {
    running = running.catch(() => { }).then(() => pass(network, picture, noisy));
    return running;
  }

  const isLike = ({ resolution: side }, { width, height, channels }) => width === side && height === side && channels === 3;

  // As `Network.denoise` of the library; `whole`: a picture as those of the training, without its corrections.
  async function pass(network, picture, noisy, whole = isLike(network, picture)) {
    const session = await (sessions[network.name] ??= ort.InferenceSession.create(`_static/demo/${network.name}.onnx`));
    const { width, height } = picture, up = size => STRIDE * Math.ceil(size / STRIDE);
    const columns = up(width), rows = up(height), area = rows * columns, reflect = (n, size) => {
      const period = Math.max(1, 2 * (size - 1)), at = n % period;
      return at < size ? at : period - at;
    };
    const digits = network.set === "digits", channels = digits ? 1 : 3, planes = digits ? picture.channels : 1;
    const grey = !digits && picture.channels === 1, moves = grey && !whole;
    const denoised = new Float32Array(noisy.length);
    let probabilities = [];
    const begun = performance.now(), side = network.resolution;
    const square = network.classes.length && !digits && (width !== side || height !== side);  // is what is classified
    const { probabilities: ofSquare } = square ? await pass(network, ...middle(picture, noisy, side), true) : {};
    for (let plane = 0; plane < planes; plane++) {  // a network of grey images takes colours one by one
      const input = new Float32Array(channels * area);
      for (let channel = 0; channel < channels; channel++) {
        const [down, right] = moves ? [+(channel === 1), +(channel === 2)] : [0, 0];  // noise is another in each channel
        for (let y = 0; y < rows; y++)
          for (let x = 0; x < columns; x++)
            input[channel * area + ((y + down) % rows) * columns + (x + right) % columns] = noisy[
              ((plane + (picture.channels === 1 ? 0 : channel)) * height + reflect(y, height)) * width + reflect(x, width)];
      }
      const feeds = { noisy: new ort.Tensor("float32", input, [1, channels, rows, columns]) };
      if (session.inputNames.includes("boxes")) {
        const boxes = picture.boxes.length ? picture.boxes : [[0, 0, STRIDE, STRIDE]];
        feeds.boxes = new ort.Tensor("int64", BigInt64Array.from(boxes.flat(), BigInt), [1, boxes.length, 4]);
      }
      const results = await session.run(feeds), output = results.denoised.data;
      for (let channel = 0; channel < (grey ? 1 : Math.min(channels, picture.channels)); channel++) {
        const from = output.slice(channel * area, (channel + 1) * area);
        for (let at = 0; moves && at < area; at++) {
          const below = at + columns < area ? at + columns : at, after = (at + 1) % columns ? at + 1 : at;
          const [lower, right] = [below === at ? at : area + below, after === at ? at : 2 * area + after];
          from[at] = (output[at] + output[lower] + output[right]) / 3;
        }
        if (!digits && !whole) giveBrightness(from, input.subarray(channel * area, (channel + 1) * area), rows, columns);
        for (let y = 0; y < height; y++)
          for (let x = 0; x < width; x++)
            denoised[((plane + channel) * height + y) * width + x] = from[y * columns + x];
      }
      if (results.logits) probabilities = softmax(results.logits.data, network.classes.length);
    }
    return { denoised, probabilities: ofSquare ?? probabilities, ms: performance.now() - begun };
  }

  // The noisy picture's means over squares of `STRIDE` pixels, and between their centres what lies between.
  function giveBrightness(denoised, noisy, rows, columns) {
    const [high, wide] = [rows / STRIDE, columns / STRIDE], means = new Float32Array(high * wide);
    for (let y = 0; y < rows; y++)
      for (let x = 0; x < columns; x++)
        means[Math.floor(y / STRIDE) * wide + Math.floor(x / STRIDE)] +=
          (noisy[y * columns + x] - denoised[y * columns + x]) / STRIDE ** 2;
    const between = (n, size) => {
      const place = Math.max(0, (n + 0.5) / STRIDE - 0.5), low = Math.floor(place);
      return [low, Math.min(low + 1, size - 1), place - low];
    };
    for (let y = 0; y < rows; y++) {
      const [top, bottom, v] = between(y, high);
      for (let x = 0; x < columns; x++) {
        const [left, right, u] = between(x, wide), mix = row => means[row * wide + left] * (1 - u) + means[row * wide + right] * u;
        denoised[y * columns + x] += mix(top) * (1 - v) + mix(bottom) * v;
      }
    }
  }

  // The middle square of a picture and its pixels, averaged to `side` as by PyTorch's antialiased `interpolate`.
  function middle({ width, height, channels }, pixels, side) {
    const size = Math.min(width, height), scale = size / side, support = Math.max(1, scale);
    const filters = Array.from({ length: side }, (_, n) => {
      const centre = scale * (n + 0.5), from = Math.max(0, Math.floor(centre - support + 0.5));
      const count = Math.min(size, Math.floor(centre + support + 0.5)) - from;
      const weights = Array.from({ length: count }, (_, k) => Math.max(0, 1 - Math.abs(from + k + 0.5 - centre) / support));
      const sum = weights.reduce((a, b) => a + b);
      return { from, weights: weights.map(weight => weight / sum) };
    });
    const apply = ({ from, weights }, at) => weights.reduce((sum, weight, k) => sum + weight * at(from + k), 0);
    const top = (height - size) >> 1, left = (width - size) >> 1;
    const rows = new Float32Array(channels * size * side), square = new Float32Array(channels * side * side);
    for (let channel = 0; channel < channels; channel++) {
      for (let y = 0; y < size; y++)
        for (let x = 0; x < side; x++)
          rows[(channel * size + y) * side + x] =
            apply(filters[x], n => pixels[(channel * height + top + y) * width + left + n]);
      for (let y = 0; y < side; y++)
        for (let x = 0; x < side; x++)
          square[(channel * side + y) * side + x] = apply(filters[y], n => rows[(channel * size + n) * side + x]);
    }
    return [{ width: side, height: side, channels, boxes: [] }, square];
  }

  function softmax(logits, classes) {
    return Array.from({ length: logits.length / classes }, (_, n) => {
      const row = Array.from(logits.slice(n * classes, (n + 1) * classes)), most = Math.max(...row);
      const weights = row.map(value => Math.exp(value - most)), sum = weights.reduce((a, b) => a + b);
      return weights.map(weight => weight / sum);
    });
  }

  const fitting = set => {
    const same = networks.filter(network => network.set === set);
    if (same.length) return same;
    const colour = networks.filter(network => network.set === "photographs");
    return colour.length ? colour : networks.filter(network => network.set !== "digits");
  };

  // ---- the demo

  function explore(pictures) {
    const state = { picture: pictures[0], network: null, sigma: 0.4 };
    const thumbs = html("div", { class: "thumbs", role: "group", "aria-label": "pictures" });
    const file = html("input", { type: "file", accept: "image/*", onchange: () => take(file.files[0]) });
    const select = html("select", { "aria-label": "network", onchange: () => { state.network = select.value; show(); } });
    const knob = html("input", { type: "range", min: 0, max: 1, step: 0.05, name: "sigma", "aria-label": "noise level σ" });
    const level = html("output"), wipe = html("input", { type: "range", min: 0, max: 100, value: 50, name: "wipe",
      "aria-label": "from noisy to denoised" });
    const clean = html("canvas"), noisy = html("canvas"), denoised = html("canvas", { class: "over" });
    const words = ["clean", "noisy on the right, denoised on the left"].map(text => html("figcaption", {}, text));
    const both = html("div", { class: "both" }, noisy, denoised), status = html("p", { role: "status" });
    const views = html("div", { class: "views" }, html("figure", {}, clean, words[0]), html("figure", {}, both, words[1]));
    knob.addEventListener("input", () => { state.sigma = +knob.value; show(); });
    const part = percent => both.style.setProperty("--part", `${wipe.value = percent}%`);
    wipe.addEventListener("input", () => part(wipe.value));
    both.addEventListener("pointermove", event => {
      const { left, width } = both.getBoundingClientRect();
      part(Math.round(100 * Math.min(1, Math.max(0, (event.clientX - left) / width))));
    });
    for (const picture of pictures) {
      const thumb = html("button", { type: "button", title: picture.title, "aria-label": picture.title,
        onclick: () => { state.picture = picture; state.network = null; show(); } }, picture.canvas);
      picture.thumb = thumb;
      if (parseInt(picture.id.split("-")[1]) < 5) thumbs.append(thumb);
    }
    for (const name of ["dragover", "drop"])
      demo.addEventListener(name, event => {
        event.preventDefault();
        if (name === "drop") take(event.dataTransfer.files[0]);
      });
    demo.append(thumbs, html("div", { class: "controls" },
      html("label", {}, html("span", {}, "own picture"), file), html("label", {}, html("span", {}, "network"), select),
      html("label", {}, html("span", {}, "noise level σ"), knob, level), html("label", {}, html("span", {}, "wipe"), wipe)),
      views, status);

    async function take(chosen) {
      if (!chosen) return;
      try {
        state.picture = await ownPicture(chosen);
        state.network = null;
        show();
      } catch {
        views.hidden = true;
        status.textContent = `${chosen.name} is no picture that this browser reads.`;
      }
    }

    let wish = 0;
    async function show() {
      const { picture, sigma } = state, choices = fitting(picture.set), mine = ++wish;
      const network = choices.find(({ name }) => name === state.network) ?? choices[0];
      state.network = network.name;
      select.replaceChildren(...choices.map(({ name, label }) => html("option", { value: name }, label)));
      select.value = network.name;
      knob.value = sigma;
      level.textContent = sigma.toFixed(2);
      for (const { thumb } of pictures) thumb.setAttribute("aria-pressed", thumb === picture.thumb);
      const place = new URLSearchParams({ picture: picture.id, network: network.name, sigma: sigma.toFixed(2) });
      if (picture.set !== "own") history.replaceState(null, "", `#${place}`);
      const input = withNoise(picture, sigma);
      if (!sessions[network.name]) status.textContent = "The network is being loaded …";
      const { denoised: output, probabilities, ms } = await answer(network, picture, input);
      if (mine !== wish) return;  // a newer move is under way
      views.hidden = false;
      paint(clean, picture, picture.pixels);
      paint(noisy, picture, input);
      paint(denoised, picture, output);
      const known = network.set === picture.set && picture.labels.length > 0;
      const [before, after] = [input, output].map(x => psnr(x, picture.pixels));
      for (const canvas of known && picture.boxes.length ? [clean, denoised] : []) mark(canvas, picture, network, probabilities);
      const right = sigma ? `, ${before.toFixed(1)} dB` : "", left = sigma ? `, ${after.toFixed(1)} dB` : "";
      words[0].textContent = picture.set === "own" ? picture.title : `clean: ${picture.title}`;
      words[1].textContent = `left: denoised${left}; right: noisy${right}`;
      status.replaceChildren(...says(network, picture, probabilities, known, sigma),
        sigma && after < before ? " It makes this picture worse than the noise does." : "", ` (${ms.toFixed(0)} ms)`);
    }

    const place = new URLSearchParams(location.hash.slice(1));
    state.picture = pictures.find(({ id }) => id === place.get("picture")) ?? pictures[0];
    state.network = place.get("network");
    if (place.has("sigma")) state.sigma = Math.min(1, Math.max(0, +place.get("sigma") || 0));
    part(50);
    show();
  }

  const best = row => row.indexOf(Math.max(...row));

  // Frames around the digits, with the network's answer in colour.
  function mark(canvas, picture, network, probabilities, only) {
    const pen = canvas.getContext("2d");
    picture.boxes.forEach(([x0, y0, x1, y1], n) => {
      if (only !== undefined && n !== only) return;
      const label = probabilities[n] && network.classes[best(probabilities[n])];
      pen.strokeStyle = label === undefined ? "#56b4e9" : label === picture.labels[n] ? "#009e73" : "#d55e00";
      pen.lineWidth = 1.5;
      pen.strokeRect(x0 + 0.5, y0 + 0.5, x1 - x0 - 1, y1 - y0 - 1);
    });
  }

  // A label, if the network's classes are known to be in the picture, or by the network's rule.
  function says(network, picture, probabilities, known, sigma) {
    if (!network.classes.length) return [`${network.label} only denoises. `];
    const { below, rates } = network.refusal ?? { below: Infinity };
    const none = ["No label: this picture is unlike anything that ", network.label, " was trained on."];
    if (!known && (picture.labels.length || !(Math.max(...probabilities.flat()) >= below))) {
      if (picture.labels.length || !rates) return none;
      const near = rates.reduce((a, b) => Math.abs(b.sigma - sigma) < Math.abs(a.sigma - sigma) ? b : a);
      const refused = `At σ = ${near.sigma} the rule refuses ${near.refused.toFixed(0)}% of such pictures too`;
      return [...none, ` ${refused}, and labels ${near.labelled.toFixed(0)}% of others.`];
    }
    const answers = probabilities.flatMap((row, n) => {
      const label = network.classes[best(row)], right = label === picture.labels[n];
      if (!known) return [html("b", {}, label), ` ${(100 * Math.max(...row)).toFixed(0)}%`];
      const text = right ? `${label} ✓` : `${label} ✗ (it is ${picture.labels[n]})`;
      return [n ? ", " : "", html("b", { class: right ? "right" : "wrong" }, text), ` ${(100 * Math.max(...row)).toFixed(0)}%`];
    });
    return [`${network.label} says `, ...answers, "."];
  }

  // ---- the game

  function play(pictures) {
    const network = fitting("digits").find(({ classes }) => classes.length), digits = pictures.filter(({ set }) => set === "digits");
    if (!network || !digits.length) return;
    const STEPS = ["noisy", "denoised", "with the label"];
    const canvas = html("canvas"), text = html("p", { role: "status" }), keys = html("div", { class: "keys" });
    const begin = html("button", { type: "button", onclick: rounds }, "Begin"), view = html("figure", {}, canvas);
    game.append(view, text, keys, begin);
    for (let digit = 0; digit < 10; digit++) keys.append(html("button", { type: "button" }, digit));
    view.hidden = keys.hidden = true;

    const pressed = () => new Promise(resolve => {
      for (const key of keys.children) key.onclick = () => resolve(key.textContent);
    });

    async function rounds() {
      const order = digits.map(picture => [Math.random(), picture]).sort((a, b) => a[0] - b[0]), rows = [];
      begin.hidden = true;
      view.hidden = keys.hidden = false;
      for (let round = 0; round < ROUNDS; round++) {
        const picture = order[round % order.length][1], digit = Math.floor(picture.boxes.length * Math.random());
        const input = withNoise(picture, GAME_SIGMA), { denoised, probabilities } = await answer(network, picture, input);
        const label = network.classes[best(probabilities[digit])], row = { round: round + 1, truth: picture.labels[digit] };
        for (const step of STEPS) {
          paint(canvas, picture, step === "noisy" ? input : denoised);
          mark(canvas, picture, network, [], digit);
          const hint = step === STEPS[2] ? ` The network says ${label}.` : "";
          text.textContent = `Round ${round + 1} of ${ROUNDS}, ${step}: which digit is in the frame?${hint}`;
          row[step] = await pressed();
        }
        rows.push({ ...row, network: label });
      }
      finish(rows);
    }

    function finish(rows) {
      const columns = [...STEPS, "network"], right = columns.map(name => rows.filter(row => row[name] === row.truth).length);
      const change = (from, to) => `${to - from >= 0 ? "+" : "−"}${Math.abs(to - from)}`;
      keys.hidden = true;
      begin.hidden = false;
      begin.textContent = "Again";
      const names = ["round", "truth", ...columns], lines = [names, ...rows.map(row => names.map(name => row[name]))];
      const save = html("a", { download: "dcnas-game.csv",
        href: URL.createObjectURL(new Blob([lines.map(line => line.join(",")).join("\n") + "\n"], { type: "text/csv" })) }, "Save as CSV");
      text.replaceChildren(`You read ${right[0]} of ${ROUNDS} in the noise, ${right[1]} denoised (${change(right[0], right[1])}), ` +
        `${right[2]} with the label (${change(right[1], right[2])}); the network alone ${right[3]}. `, save);
    }
  }

  stockPictures().then(pictures => { explore(pictures); play(pictures); });
})();
