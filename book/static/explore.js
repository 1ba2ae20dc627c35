// Sliders over the published trainings: the page holds the numbers (#grid), nothing is fetched.
(() => {
  const data = JSON.parse(document.getElementById("grid").textContent);
  const { sigmas, unets, dcnets } = data;
  const MEAN = 0, LOW = 1, HIGH = 2, FIRST = 3;  // places in a level of a curve; from FIRST on each training
  const BLOCKS = { conv: "3×3 conv", mbconv: "MBConv" };
  const LABELS = {
    b: "b: base width (channels)", d: "d: depth (levels)", m: "m: width multiplier",
    c: "c: blocks per level", block: "block", sigma: "σ: noise level",
  };

  const make = space => (tag, attributes = {}, ...children) => {
    const element = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const html = make("http://www.w3.org/1999/xhtml"), svg = make("http://www.w3.org/2000/svg");

  function interval(level, unit) {
    const [mean, low, high] = level.map(value => value?.toFixed(1));
    return low === undefined ? `${mean} ${unit}` : `${mean} ${unit} (${low} to ${high})`;
  }

  // A slider over a list of values; `changed` is called with the value when a reader moves it.
  function slider(name, values, changed) {
    const range = { type: "range", min: 0, max: values.length - 1, step: 1 };
    const input = html("input", { ...range, name, "aria-label": LABELS[name] }), shown = html("output");
    input.addEventListener("input", () => changed(values[input.value]));
    const set = value => {
      input.value = values.indexOf(value);
      shown.textContent = BLOCKS[value] ?? String(value);
      input.setAttribute("aria-valuetext", shown.textContent);
    };
    return { set, row: html("label", {}, html("span", {}, LABELS[name]), input, shown) };
  }

  // A function that turns values from `low` to `high` into pixels.
  function pixels([low, high], from, to, of = value => value) {
    return value => from + (to - from) * (of(value) - of(low)) / (of(high) - of(low));
  }

  // At most seven round numbers that lie between two.
  function ticks([low, high]) {
    const step = [1, 2, 5, 10, 20].find(step => (high - low) / step <= 7);
    const first = Math.ceil(low / step) * step;
    return Array.from({ length: Math.floor((high - first) / step) + 1 }, (_, n) => first + n * step);
  }

  // Axes in an empty figure as wide as its place, `x` and `y` being the ranges of their values.
  function axes(place, alt, { x, y, log, xTicks, xLabel, title }) {
    const width = place.clientWidth, height = 250;
    const left = 38, right = width - 12, top = 26, bottom = height - 40;
    const chart = { x: pixels(x, left, right, log && Math.log), y: pixels(y, bottom, top), right };
    const root = svg("svg", { width, height, role: "img", "aria-label": alt });
    chart.add = (tag, attributes, ...children) => root.appendChild(svg(tag, attributes, ...children));
    chart.line = (look, x1, y1, x2, y2) => chart.add("line", { class: look, x1, y1, x2, y2 });
    chart.text = (x, y, text, anchor = "middle") => chart.add("text", { x, y, "text-anchor": anchor }, text);
    chart.path = (look, points) => {
      const steps = points.map(([x, y]) => `${chart.x(x).toFixed(1)},${chart.y(y).toFixed(1)}`);
      chart.add("path", { class: look, d: `M${steps.join("L")}` });
    };
    chart.upright = x => chart.line("rule now", chart.x(x), top, chart.x(x), bottom);
    for (const tick of ticks(y)) {
      chart.line("rule", left, chart.y(tick), right, chart.y(tick));
      chart.text(left - 6, chart.y(tick) + 4, tick, "end");
    }
    for (const tick of xTicks) chart.text(chart.x(tick), bottom + 17, tick);
    chart.text((left + right) / 2, height - 6, xLabel);
    chart.text(2, 14, title, "start").setAttribute("class", "title");
    place.replaceChildren(root);
    return chart;
  }

  const overSigma = (title, y) => (
    { x: [0, 1], y, xTicks: [0, 0.2, 0.4, 0.6, 0.8, 1], xLabel: "noise level σ", title }
  );

  // The PSNR of all trainings of some networks, from the least to the most.
  function psnrRange(nets) {
    const all = nets.flatMap(net => net.psnr.flatMap(level => level.slice(FIRST)));
    return [Math.min(...all) - 1, Math.max(...all) + 1];
  }

  // A curve over the noise levels: each training thin, their mean, a dot at the chosen level.
  function curve(chart, levels, look, chosen) {
    for (let training = FIRST; training < levels[0].length; training++)
      chart.path(`line thin ${look}`, along(levels, training));
    chart.path(`line ${look}`, along(levels, MEAN));
    const [x, y] = along(levels, MEAN)[chosen];
    chart.add("circle", { class: `dot ${look}`, cx: chart.x(x), cy: chart.y(y), r: 5 });
  }

  const along = (levels, place) => levels.map((level, n) => [sigmas[n], level[place]]);

  // Controls, words and two charts, which are drawn anew whenever their width changes.
  function panel(id, words, draw) {
    const controls = html("div", { class: "controls" });
    const charts = html("div", { class: "charts" }, html("div"), html("div"));
    const note = "Bold: their mean; thin: each training; brackets: 95% interval, Student's t over trainings.";
    document.getElementById(id).append(controls, words, charts, html("small", {}, `${data.from[id]} ${note}`));
    new ResizeObserver(() => draw()).observe(charts);
    return { controls, charts: charts.children };
  }

  function exploreUnets() {
    const names = ["b", "d", "m", "c", "block"], sliders = {};
    let sigma = sigmas.indexOf(0.8), missing = "";
    let chosen = unets.find(net => net.b === 8 && net.m === 1.5) ?? unets[0];  // the paper's reduced one
    const values = {};
    for (const name of names)
      values[name] = [...new Set(unets.map(net => net[name]))].sort((a, b) => a > b ? 1 : -1);

    const words = net => names.map(name => BLOCKS[net[name]] ?? `${name} = ${net[name]}`).join(", ");

    // How many steps of the sliders lie between two networks; another block is further than any size.
    function distance(net, other) {
      const steps = name => Math.abs(values[name].indexOf(net[name]) - values[name].indexOf(other[name]));
      return names.reduce((sum, name) => sum + (name === "block" ? 4 : 1) * steps(name), 0);
    }

    // The moved slider stays, the others go to the nearest network that was trained.
    function choose(name, value) {
      const wish = { ...chosen, [name]: value };
      const nearer = (best, net) => distance(net, wish) < distance(best, wish) ? net : best;
      chosen = unets.filter(net => net[name] === value).reduce(nearer);
      missing = distance(chosen, wish)
        ? `Not trained: ${words(wish)}. The other sliders went to the nearest that was. ` : "";
      draw();
    }

    function drawScatter(alt) {
      const level = chosen.psnr[sigma], costs = unets.map(net => net.mflops);
      const all = [...unets.map(net => net.psnr[sigma][MEAN]), level[LOW], level[HIGH]].filter(Number.isFinite);
      const chart = axes(view.charts[0], alt, {
        x: [0.8 * Math.min(...costs), 1.25 * Math.max(...costs)], log: true, xTicks: [20, 100, 500, 2000, 5000],
        y: [Math.min(...all) - 0.5, Math.max(...all) + 0.5], xLabel: "FLOPs (M)",
        title: `PSNR (dB) at σ = ${sigmas[sigma]}`,
      });
      const x = chart.x(chosen.mflops);
      if (Number.isFinite(level[LOW])) chart.line("line one", x, chart.y(level[LOW]), x, chart.y(level[HIGH]));
      for (const net of [...unets.filter(net => net !== chosen), chosen]) {  // the chosen one lies on top
        const x = chart.x(net.mflops), y = chart.y(net.psnr[sigma][MEAN]), r = net === chosen ? 7 : 4.5;
        const square = { x: x - r, y: y - r, width: 2 * r, height: 2 * r, transform: `rotate(45 ${x} ${y})` };
        const look = { class: `dot ${net.block}${net === chosen ? " one" : ""}` };
        const mark = net.block === "mbconv" ? chart.add("rect", { ...look, ...square })
          : chart.add("circle", { ...look, cx: x, cy: y, r });
        mark.append(svg("title", {}, words(net)));
        mark.addEventListener("click", () => { chosen = net; missing = ""; draw() });
      }
      chart.text(chart.right, 14, "● conv  ◇ MBConv", "end");
    }

    function draw() {
      for (const name of names) sliders[name].set(chosen[name]);
      sliders.sigma.set(sigmas[sigma]);
      const psnr = `${interval(chosen.psnr[sigma], "dB")} at σ = ${sigmas[sigma]}`;
      const flops = `${chosen.mflops.toLocaleString("en")} M FLOPs`;
      const cost = `${flops}, ${chosen.ms} ms for an image (${data.device})`;
      const text = `${words(chosen)}: ${psnr}, ${cost}.`;
      status.replaceChildren(html("strong", {}, missing), text);
      drawScatter(`PSNR over FLOPs of ${unets.length} trained UNets. Chosen: ${text}`);
      const alt = `PSNR of all UNets over the noise level. Chosen: ${text}`;
      const chart = axes(view.charts[1], alt, overSigma("PSNR (dB), all others grey", psnrRange(unets)));
      for (const net of unets) chart.path("line other", along(net.psnr, MEAN));
      if (Number.isFinite(chosen.psnr[0][LOW]))
        chart.path("band one", [...along(chosen.psnr, LOW), ...along(chosen.psnr, HIGH).reverse()]);
      curve(chart, chosen.psnr, "one", sigma);
    }

    const status = html("p", { role: "status" }), view = panel("unets", status, draw);
    for (const name of names) sliders[name] = slider(name, values[name], value => choose(name, value));
    sliders.sigma = slider("sigma", sigmas, value => {
      sigma = sigmas.indexOf(value);
      missing = "";
      draw();
    });
    view.controls.append(...Object.values(sliders).map(each => each.row));
    draw();
  }

  function exploreDcnets() {
    let level = sigmas.indexOf(0.8);
    const colour = name => name.includes("Integrated") ? "one" : "two";
    const look = name => colour(name) + (name.includes("Reduced") ? " dashed" : "");

    function key(name) {
      const line = svg("path", { class: `line ${look(name)}`, d: "M1,5L33,5" });
      return svg("svg", { width: 34, height: 10, "aria-hidden": "true" }, line);
    }

    function row({ name, psnr, accuracy }) {
      const cells = [interval(psnr[level], "dB"), interval(accuracy[level], "%")];
      return html("tr", {}, html("th", { scope: "row" }, key(name), ` ${name}`),
        ...cells.map(cell => html("td", {}, cell)));
    }

    function drawCurves(place, metric, title, y) {
      const numbers = dcnets.map(net => `${net.name} ${net[metric][level][MEAN]}`).join(", ");
      const alt = `${title} of four DC-Nets over the noise level; at σ = ${sigmas[level]}: ${numbers}.`;
      const chart = axes(place, alt, overSigma(title, y));
      chart.upright(sigmas[level]);
      for (const net of dcnets) curve(chart, net[metric], look(net.name), level);
    }

    function draw() {
      control.set(sigmas[level]);
      const head = ["DC-Net", "PSNR", "accuracy"].map(text => html("th", { scope: "col" }, text));
      const caption = html("caption", {}, `At σ = ${sigmas[level]}`);
      table.replaceChildren(caption, html("tr", {}, ...head), ...dcnets.map(row));
      drawCurves(view.charts[0], "psnr", "PSNR (dB)", psnrRange(dcnets));
      drawCurves(view.charts[1], "accuracy", "accuracy (%)", [0, 101]);
    }

    const table = html("table", { class: "key", "aria-live": "polite" }), view = panel("dcnets", table, draw);
    const control = slider("sigma", sigmas, value => { level = sigmas.indexOf(value); draw() });
    view.controls.append(control.row);
    draw();
  }

  exploreUnets();
  exploreDcnets();
})();
