"use strict";
// The page's data: names and colours by label, the scored labels, and facts about each frame.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const scored = new Set(data.scored);
const shown = new Set(data.names.keys());
const state = { order: [], at: 0, frame: null, cross: null };

// Labels are zlib-compressed and images are WebP; both are in the script element of their frame.
async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function picture(base64) {
  const image = new Image();
  image.src = "data:image/webp;base64," + base64;
  await image.decode();
  return image;
}

// The parts of a frame. Waits until the parser is past its element, whose text is then complete.
async function block(index) {
  while (!$("f" + (index + 1)) && document.readyState === "loading") {
    await new Promise((done) => setTimeout(done, 50));
  }
  return $("f" + index).textContent.split(" ");
}

async function load(index) {
  const [color, depth, truth, found] = await block(index);
  const [colorImage, depthImage, truthMap, foundMap] = await Promise.all([
    picture(color), picture(depth), unpack(truth), unpack(found),
  ]);
  const [width, height] = data.frames[index].size;
  const frame = { index, width, height, truth: truthMap, found: foundMap };
  for (const [name, image] of [["color", colorImage], ["depth", depthImage]]) {
    const context = layer(frame).getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0, width, height);
    frame[name] = context.canvas;
    frame[name + "Pixels"] = context.getImageData(0, 0, width, height).data;
  }
  return frame;
}

function layer(frame) {
  const canvas = document.createElement("canvas");
  canvas.width = frame.width;
  canvas.height = frame.height;
  return canvas;
}

// A layer whose pixels are the packed colours (alpha, blue, green, red) of `at(i)`.
function paint(frame, at) {
  const canvas = layer(frame);
  const context = canvas.getContext("2d");
  const image = context.createImageData(frame.width, frame.height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = at(i);
  context.putImageData(image, 0, 0);
  return canvas;
}

const packed = (r, g, b) => (255 << 24 | b << 16 | g << 8 | r) >>> 0;

// Labels that are switched on, in their colours; all others are transparent.
function labelLayer(frame, labels) {
  const table = Uint32Array.from(data.colors, (color, label) => (
    label && shown.has(label) ? packed(...color) : 0));
  return paint(frame, (i) => table[labels[i]]);
}

function errorLayer(frame) {
  const { truth, found, colorPixels } = frame;
  const off = packed(200, 150, 170);
  const on = packed(216, 27, 96);
  const counts = Uint8Array.from(data.names, (_, label) => scored.has(label));
  const visible = Uint8Array.from(data.names, (_, label) => shown.has(label));
  return paint(frame, (i) => {
    const grey = (colorPixels[4 * i] + colorPixels[4 * i + 1] + colorPixels[4 * i + 2]) / 12;
    if (!counts[truth[i]]) return packed(grey, grey, grey);
    if (truth[i] === found[i]) return packed(190 + grey, 190 + grey, 190 + grey);
    return visible[truth[i]] || visible[found[i]] ? on : off;
  });
}

// Draws layers on top of each other into one of the page's canvases.
function compose(id, frame, ...layers) {
  const canvas = $(id);
  canvas.width = frame.width;
  canvas.height = frame.height;
  const context = canvas.getContext("2d");
  for (const image of layers) context.drawImage(image, 0, 0);
  return context;
}

function drawCompare() {
  const frame = state.frame;
  const split = $("split").value / 100;
  const edge = Math.round(split * frame.width);
  // As wide as the column, but low enough that the sliders below stay visible.
  $("compare").parentNode.style.maxWidth = `${75 * frame.width / frame.height}vh`;
  const context = compose("compare", frame, frame.color);
  context.globalAlpha = $("strength").value / 100;
  for (const [image, from, to] of [[frame.truthLayer, 0, edge],
                                   [frame.foundLayer, edge, frame.width]]) {
    const size = [from, 0, to - from, frame.height];
    if (to > from) context.drawImage(image, ...size, ...size);
  }
  $("divider").style.left = `calc(${100 * split}% - 1.5px)`;
  $("split").setAttribute("aria-valuetext", `${$("split").value} % truth`);
}

function drawLabels() {
  const frame = state.frame;
  frame.truthLayer = labelLayer(frame, frame.truth);
  frame.foundLayer = labelLayer(frame, frame.found);
  compose("truth", frame, frame.color, frame.truthLayer);
  compose("prediction", frame, frame.color, frame.foundLayer);
  compose("error", frame, errorLayer(frame));
  drawCompare();
}

const percent = (value) => (value === null ? "not defined" : (100 * value).toFixed(1) + " %");

function describe(index) {
  const about = data.frames[index];
  const parts = [`pixel accuracy ${percent(about.accuracy)}`, `mean IoU ${percent(about.iou)}`,
                 `${about.pixels} scored pixels`, `${about.size.join("x")}`];
  if (about.step > 1) parts.push(`every ${about.step}th pixel of the labels is shown`);
  if (about.scene) {
    const [truth, found] = about.scene.map((scene) => data.scenes[scene]);
    parts.push(truth === found ? `scene ${truth}, recognised` : `scene ${truth}, taken for ${found}`);
  }
  return parts.join(", ");
}

// Pixels of each label in truth and prediction, for the legend.
function count(frame) {
  const counts = data.names.map(() => [0, 0]);
  for (let i = 0; i < frame.truth.length; i++) {
    counts[frame.truth[i]][0]++;
    counts[frame.found[i]][1]++;
  }
  return counts;
}

function updateLegend() {
  const counts = count(state.frame);
  counts.forEach(([truth, found], label) => {
    const row = $("l" + label);
    if (!row) return;
    row.querySelector(".pixels").textContent = truth || found ? `${truth} / ${found}` : "";
    row.hidden = !(truth || found) && data.names.length > 14;
  });
}

function updateShown() {
  for (const box of $("legend").querySelectorAll("input")) box.checked = shown.has(+box.value);
  if (state.frame) drawLabels();
}

async function show(place) {
  if (!state.order.length) return;
  state.at = (place + state.order.length) % state.order.length;
  const index = state.order[state.at];
  $("frame").value = index;
  $("position").textContent = `${state.at + 1} of ${state.order.length}`;
  const frame = await load(index);
  if (state.order[state.at] !== index) return;  // the user has moved on to another frame
  state.frame = frame;
  state.cross = null;
  $("cross").style.display = "none";
  $("name").textContent = data.frames[index].key;
  $("facts").textContent = describe(index);
  updateLegend();
  compose("color", frame, frame.color);
  compose("depth", frame, frame.depth);
  drawLabels();
  document.body.dataset.frame = index;
}

function readout(x, y) {
  const frame = state.frame;
  const i = y * frame.width + x;
  const step = data.frames[frame.index].step;
  const truth = data.names[frame.truth[i]];
  const found = data.names[frame.found[i]];
  const [r, g, b] = frame.colorPixels.subarray(4 * i, 4 * i + 3);
  $("readout").textContent = `x ${x * step}, y ${y * step}: truth ${truth}, prediction ${found}`
    + (scored.has(frame.truth[i]) ? (truth === found ? " (right)" : " (wrong)") : " (not scored)")
    + `; depth about ${frame.depthPixels[4 * i]} of 255; colour ${r}, ${g}, ${b}`;
}

function pointed(event) {
  const frame = state.frame;
  if (!frame) return null;
  const box = event.currentTarget.getBoundingClientRect();
  const clamp = (value, limit) => Math.min(limit - 1, Math.max(0, Math.floor(value)));
  return [clamp((event.clientX - box.left) / box.width * frame.width, frame.width),
          clamp((event.clientY - box.top) / box.height * frame.height, frame.height)];
}

function placeCross(x, y) {
  const { width, height } = state.frame;
  state.cross = [Math.min(width - 1, Math.max(0, x)), Math.min(height - 1, Math.max(0, y))];
  const style = $("cross").style;
  style.display = "block";
  style.left = `${100 * (state.cross[0] + 0.5) / width}%`;
  style.top = `${100 * (state.cross[1] + 0.5) / height}%`;
  readout(...state.cross);
}

function setSplit(value) {
  $("split").value = value;
  drawCompare();
}

function watchPictures() {
  for (const id of ["compare", "color", "depth", "truth", "prediction", "error"]) {
    $(id).addEventListener("pointermove", (event) => {
      const at = pointed(event);
      $("readout").setAttribute("aria-live", "off");
      if (at) readout(...at);
      if (at && id === "compare" && event.buttons) setSplit(100 * at[0] / state.frame.width);
    });
  }
  $("compare").addEventListener("pointerdown", (event) => {
    const at = pointed(event);
    if (at) setSplit(100 * at[0] / state.frame.width);
    event.currentTarget.setPointerCapture(event.pointerId);
  });
  $("compare").addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!(event.key in steps) || !state.frame) return;
    event.preventDefault();
    const far = event.shiftKey ? 10 : 1;
    const [x, y] = state.cross ?? [state.frame.width >> 1, state.frame.height >> 1];
    // Screen readers announce pixels chosen by keyboard, not those that the pointer passes.
    $("readout").setAttribute("aria-live", "polite");
    placeCross(x + far * steps[event.key][0], y + far * steps[event.key][1]);
  });
}

function watchKeys() {
  const does = {
    n: () => show(state.at + 1), p: () => show(state.at - 1),
    t: () => setSplit(100), r: () => setSplit(0), b: () => setSplit(50),
    a: () => choose(data.names.keys()), o: () => choose([]),
  };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("select, input:not([type=range], [type=checkbox])");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in does)) return;
    does[event.key]();
  });
}

function choose(labels) {
  shown.clear();
  for (const label of labels) shown.add(label);
  updateShown();
}

// The classes on which truth and prediction disagree in this frame.
function confused() {
  const found = new Set();
  const { truth, found: guess } = state.frame;
  for (let i = 0; i < truth.length; i++) {
    if (scored.has(truth[i]) && truth[i] !== guess[i]) found.add(truth[i]).add(guess[i]);
  }
  return found;
}

function buildLegend() {
  data.names.forEach((name, label) => {
    if (label === 0) return;
    const row = document.createElement("label");
    row.id = "l" + label;
    row.innerHTML = '<input type="checkbox" checked><span class="swatch"></span><span></span>'
      + '<span class="pixels"></span>';
    const [box, swatch, text] = row.children;
    box.value = label;
    box.addEventListener("change", () => {
      if (box.checked) shown.add(label); else shown.delete(label);
      updateShown();
    });
    swatch.style.background = `rgb(${data.colors[label].join(",")})`;
    text.textContent = name;
    $("legend").append(row);
  });
  $("all").addEventListener("click", () => choose(data.names.keys()));
  $("none").addEventListener("click", () => choose([]));
  $("wrong").addEventListener("click", () => state.frame && choose(confused()));
}

const byIou = (a, b) => (data.frames[a].iou ?? 2) - (data.frames[b].iou ?? 2);

function arrange() {
  const label = $("holding").value === "" ? null : +$("holding").value;
  state.order = [...data.frames.keys()].filter((i) => label === null
    || data.frames[i].truth.includes(label) || data.frames[i].found.includes(label));
  if ($("order").value === "worst") state.order.sort(byIou);
  if ($("order").value === "best") state.order.sort((a, b) => -byIou(a, b));
  $("frame").replaceChildren(...state.order.map((i) => {
    const option = document.createElement("option");
    option.value = i;
    option.textContent = `${data.frames[i].key} (IoU ${percent(data.frames[i].iou)})`;
    return option;
  }));
}

function buildPicker() {
  for (const label of data.scored) {
    const option = document.createElement("option");
    option.value = label;
    option.textContent = `with ${data.names[label]}`;
    $("holding").append(option);
  }
  for (const id of ["order", "holding"]) {
    $(id).addEventListener("change", () => { arrange(); show(0); });
  }
  $("frame").addEventListener("change", () => show(state.order.indexOf(+$("frame").value)));
  $("previous").addEventListener("click", () => show(state.at - 1));
  $("next").addEventListener("click", () => show(state.at + 1));
  for (const id of ["split", "strength"]) {
    $(id).addEventListener("input", () => state.frame && drawCompare());
  }
}

// Six thumbnails each of the worst and best frames, loaded when they become visible.
function buildEnds() {
  const ranked = [...data.frames.keys()].filter((i) => data.frames[i].iou !== null).sort(byIou);
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      block(+target.dataset.index).then(([color]) => {
        target.src = "data:image/webp;base64," + color;
      });
    }
  });
  for (const [id, list] of [["worst", ranked.slice(0, 6)], ["best", ranked.slice(-6).reverse()]]) {
    for (const index of list) {
      const item = document.createElement("li");
      item.innerHTML = '<button type="button"><img alt=""><span></span><span></span></button>';
      const [image, name, iou] = item.firstChild.children;
      image.dataset.index = index;
      name.textContent = data.frames[index].key;
      iou.textContent = `IoU ${percent(data.frames[index].iou)}`;
      item.firstChild.addEventListener("click", () => {
        $("holding").value = "";
        arrange();
        show(state.order.indexOf(index));
      });
      $(id).append(item);
      seen.observe(image);
    }
  }
}

// Clicking a heading sorts the table by that column.
function buildTables() {
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => row.cells[column].textContent.trim();
        const compare = (a, b) => (column === 0 ? value(b).localeCompare(value(a))
          : (parseFloat(value(a)) || -1) - (parseFloat(value(b)) || -1));
        const rows = [...table.tBodies[0].rows].sort(compare);
        table.tBodies[0].append(...(down ? rows.reverse() : rows));
      });
    });
  }
  document.querySelector("table.confusion").addEventListener("pointerover", (event) => {
    const cell = event.target.closest("td");
    if (!cell) return;
    const column = cell.closest("table").tHead.rows[0].cells[cell.cellIndex];
    $("cell").textContent = `True ${cell.parentNode.cells[0].textContent} as `
      + `${column.textContent}: ${cell.dataset.n} pixels.`;
  });
}

function buildNav() {
  for (const section of document.querySelectorAll("main > section")) {
    const link = document.createElement("a");
    link.href = "#" + section.id;
    link.textContent = section.querySelector("h2").textContent;
    document.querySelector("nav").append(link);
  }
}

buildNav();
buildLegend();
buildPicker();
buildEnds();
buildTables();
watchPictures();
watchKeys();
arrange();
show(0);
