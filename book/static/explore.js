// Sliders over the published trainings: the page holds the numbers (#grid), nothing is fetched.
(() => {
  const data = JSON.parse(document.getElementById("grid").textContent), { sigmas, unets, dcnets } = data;
  const BLOCKS = { conv: "3×3 conv", mbconv: "MBConv" };
  const LABELS = {
    b: "b: base width (channels)", d: "d: depth (levels)", m: "m: width multiplier", c: "c: blocks per level", block: "block",
    sigma: "σ: noise level",
  };

  const [MEAN, LOW, HIGH, FIRST] = [0, 1, 2, 3];  // what stands in a level of a curve; from FIRST on each training
  const LEVELS = [0, 0.2, 0.4, 0.6, 0.8, 1];

  const make = space => (tag, attributes = {}, ...children) => {
    const element = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const html = make("http://www.w3.org/1999/xhtml"), svg = make("http://www.w3.org/2000/svg");
  const interval = ([mean, low, high], unit) => `${mean.toFixed(1)} ${unit}` + (low === null ? "" : ` (${low.toFixed(1)} to ${high.toFixed(1)})`);
  const path = (chart, points) => "M" + points.map(([x, y]) => `${chart.x(x).toFixed(1)},${chart.y(y).toFixed(1)}`).join("L");

  // A slider over a list of values; `changed` is called with the value when a reader moves it.
  function slider(name, values, changed) {
    const input = html("input", { type: "range", min: 0, max: values.length - 1, step: 1, "aria-label": LABELS[name], name });
    const shown = html("output");
    const text = value => BLOCKS[value] ?? String(value);
    input.addEventListener("input", () => changed(values[input.value]));
    const set = value => {
      input.value = values.indexOf(value);
      input.setAttribute("aria-valuetext", shown.textContent = text(value));
    };
    return { set, row: html("label", {}, html("span", {}, LABELS[name]), input, shown) };
  }

  // Axes in an empty figure as wide as its place; `x` and `y` turn values into pixels.
  function axes(place, alt, { x, y, log = false, xTicks, yTicks, xLabel, title }) {
    const width = place.clientWidth, height = 250, box = { left: 38, right: width - 12, top: 26, bottom: height - 40 };
    const of = log ? Math.log : value => value;
    const scale = ([low, high], from, to, of = value => value) => value => from + (to - from) * (of(value) - of(low)) / (of(high) - of(low));
    const chart = { x: scale(x, box.left, box.right, of), y: scale(y, box.bottom, box.top), box };
    chart.svg = svg("svg", { width, height, role: "img", "aria-label": alt });
    chart.add = (tag, attributes, ...children) => chart.svg.appendChild(svg(tag, attributes, ...children));
    for (const tick of yTicks) {
      chart.add("line", { class: "rule", x1: box.left, x2: box.right, y1: chart.y(tick), y2: chart.y(tick) });
      chart.add("text", { x: box.left - 6, y: chart.y(tick) + 4, "text-anchor": "end" }, tick);
    }
    for (const tick of xTicks) chart.add("text", { x: chart.x(tick), y: box.bottom + 17, "text-anchor": "middle" }, tick);
    chart.add("text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, xLabel);
    chart.add("text", { class: "title", x: 2, y: 14 }, title);
    place.replaceChildren(chart.svg);
    return chart;
  }

  // Ticks at whole numbers that lie in [low, high], at most seven.
  function ticks(low, high) {
    const step = [1, 2, 5, 10, 20].find(step => (high - low) / step <= 7), first = Math.ceil(low / step) * step;
    return Array.from({ length: Math.floor((high - first) / step) + 1 }, (_, n) => first + n * step);
  }

  // The PSNR of all trainings of some networks, from the least to the most.
  function range(nets) {
    const all = nets.flatMap(net => net.psnr.flatMap(values => values.slice(FIRST)));
    return [Math.min(...all) - 1, Math.max(...all) + 1];
  }

  // A curve over the noise levels: band of the interval, each training thin, the mean, a dot at the chosen level.
  function curve(chart, levels, look, level, band) {
    const of = place => levels.map((values, n) => [sigmas[n], values[place]]);
    if (band && levels[0][LOW] !== null) chart.add("path", { class: `band ${look}`, d: path(chart, [...of(LOW), ...of(HIGH).reverse()]) });
    for (let training = FIRST; training < levels[0].length; training++) chart.add("path", { class: `line thin ${look}`, d: path(chart, of(training)) });
    chart.add("path", { class: `line ${look}`, d: path(chart, of(MEAN)) });
    chart.add("circle", { class: `dot ${look}`, cx: chart.x(sigmas[level]), cy: chart.y(levels[level][MEAN]), r: 5 });
  }

  // The page's parts are drawn anew whenever their width changes.
  function panel(id, draw) {
    const place = document.getElementById(id), controls = html("div", { class: "controls" });
    const status = html("p", { role: "status" }), charts = html("div", { class: "charts" }, html("div"), html("div"));
    place.append(controls, status, charts, html("small", {}, `${data.from[id]} Bold: their mean; thin: each training; brackets: 95% interval, Student's t over trainings.`));
    new ResizeObserver(() => draw()).observe(charts);
    return { place, controls, status, charts: charts.children };
  }

  function exploreUnets() {
    const names = ["b", "d", "m", "c", "block"], sliders = {};
    let sigma = sigmas.indexOf(0.8), missing = "";
    let chosen = unets.find(net => net.b === 8 && net.m === 1.5 && net.block === "conv") ?? unets[0];  // the paper's reduced one
    const values = Object.fromEntries(names.map(name => [name, [...new Set(unets.map(net => net[name]))].sort((a, b) => a > b ? 1 : -1)]));
    const words = net => names.map(name => name === "block" ? BLOCKS[net.block] : `${name} = ${net[name]}`).join(", ");
    const steps = (net, other) => names.reduce((sum, name) =>
      sum + (name === "block" ? 4 : 1) * Math.abs(values[name].indexOf(net[name]) - values[name].indexOf(other[name])), 0);

    function choose(name, value) {  // the moved slider stays, the others go to the nearest network that was trained
      const wish = { ...chosen, [name]: value };
      chosen = unets.filter(net => net[name] === value).reduce((best, net) => steps(net, wish) < steps(best, wish) ? net : best);
      missing = steps(chosen, wish) ? `Not trained: ${words(wish)}. The other sliders went to the nearest that was. ` : "";
      draw();
    }

    function draw() {
      for (const name of names) sliders[name].set(chosen[name]);
      sliders.sigma.set(sigmas[sigma]);
      const level = chosen.psnr[sigma], text = `${words(chosen)}: ${interval(level, "dB")} at σ = ${sigmas[sigma]}, ` +
        `${chosen.mflops.toLocaleString("en")} M FLOPs, ${chosen.ms} ms for an image (${data.device}).`;
      view.status.replaceChildren(html("strong", {}, missing), text);
      const costs = unets.map(net => net.mflops), all = [...unets.map(net => net.psnr[sigma][MEAN]), ...level];
      const y = [Math.min(...all.filter(Number.isFinite)) - 0.5, Math.max(...all.filter(Number.isFinite)) + 0.5];
      const scatter = axes(view.charts[0], `PSNR over FLOPs of ${unets.length} trained UNets. Chosen: ${text}`, {
        x: [0.8 * Math.min(...costs), 1.25 * Math.max(...costs)], y, log: true, xTicks: [20, 100, 500, 2000, 5000], yTicks: ticks(...y), xLabel: "FLOPs (M)", title: `PSNR (dB) at σ = ${sigmas[sigma]}`,
      });
      if (level[LOW] !== null)
        scatter.add("line", { class: "line one", x1: scatter.x(chosen.mflops), x2: scatter.x(chosen.mflops), y1: scatter.y(level[LOW]), y2: scatter.y(level[HIGH]) });
      for (const net of [...unets.filter(net => net !== chosen), chosen]) {  // the chosen one lies on top
        const x = scatter.x(net.mflops), y = scatter.y(net.psnr[sigma][MEAN]), r = net === chosen ? 7 : 4.5;
        const look = { class: `dot ${net.block}` + (net === chosen ? " one" : "") };
        const mark = net.block === "conv" ? scatter.add("circle", { ...look, cx: x, cy: y, r })
          : scatter.add("rect", { ...look, x: x - r, y: y - r, width: 2 * r, height: 2 * r, transform: `rotate(45 ${x} ${y})` });
        mark.append(svg("title", {}, words(net)));
        mark.addEventListener("click", () => { chosen = net; missing = ""; draw() });
      }
      scatter.add("text", { x: scatter.box.right, y: 14, "text-anchor": "end" }, "● convolution  ◇ MBConv");
      const over = axes(view.charts[1], `PSNR over the noise level, from ${chosen.psnr[0][MEAN]} dB without noise to ${chosen.psnr.at(-1)[MEAN]} dB at σ = 1.`, {
        x: [0, 1], y: range(unets), xTicks: LEVELS, yTicks: ticks(...range(unets)), xLabel: "noise level σ", title: "PSNR (dB), all others grey",
      });
      for (const net of unets) over.add("path", { class: "line other", d: path(over, net.psnr.map((values, n) => [sigmas[n], values[MEAN]])) });
      curve(over, chosen.psnr, "one", sigma, true);
    }

    const view = panel("unets", draw);
    for (const name of names) sliders[name] = slider(name, values[name], value => choose(name, value));
    sliders.sigma = slider("sigma", sigmas, value => { sigma = sigmas.indexOf(value); missing = ""; draw() });
    view.controls.append(...Object.values(sliders).map(each => each.row));
    draw();
  }

  function exploreDcnets() {
    let level = sigmas.indexOf(0.8);
    const look = name => (name.includes("Integrated") ? "one" : "two") + (name.startsWith("Reduced") ? " dashed" : "");
    const key = name => svg("svg", { width: 34, height: 10, "aria-hidden": "true" }, svg("path", { class: `line ${look(name)}`, d: "M1,5L33,5" }));

    function draw() {
      control.set(sigmas[level]);
      const lines = dcnets.map(net => [net.name, interval(net.psnr[level], "dB"), interval(net.accuracy[level], "%")]);
      const head = html("tr", {}, ...["DC-Net", "PSNR", "accuracy"].map(text => html("th", { scope: "col" }, text)));
      table.replaceChildren(html("caption", {}, `At σ = ${sigmas[level]}`), head, ...lines.map(([name, ...cells]) =>
        html("tr", {}, html("th", { scope: "row" }, key(name), ` ${name}`), ...cells.map(cell => html("td", {}, cell)))));
      for (const [n, [metric, title, y]] of [["psnr", "PSNR (dB)", range(dcnets)], ["accuracy", "accuracy (%)", [0, 101]]].entries()) {
        const alt = `${title} of four DC-Nets over the noise level; ${lines.map(line => `${line[0]} ${line[n + 1]}`).join(", ")} at σ = ${sigmas[level]}.`;
        const chart = axes(view.charts[n], alt, { x: [0, 1], y, xTicks: LEVELS, yTicks: ticks(...y), xLabel: "noise level σ", title });
        chart.add("line", { class: "rule now", x1: chart.x(sigmas[level]), x2: chart.x(sigmas[level]), y1: chart.box.top, y2: chart.box.bottom });
        for (const net of dcnets) curve(chart, net[metric], look(net.name), level, false);
      }
    }

    const view = panel("dcnets", draw), table = html("table", { class: "key", "aria-live": "polite" });
    const control = slider("sigma", sigmas, value => { level = sigmas.indexOf(value); draw() });
    view.controls.append(control.row);
    view.status.replaceWith(table);
    draw();
  }

  exploreUnets();
  exploreDcnets();
})();
