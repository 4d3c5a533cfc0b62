"use strict";
const $ = (id) => document.getElementById(id);

// A canvas of the size of a frame, or of another thing with a width and a height.
function layer({ width, height }) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
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

// The labels in `shown` in their colours ([r, g, b] by label); all others are transparent.
function labelLayer(frame, labels, colors, shown) {
  const table = Uint32Array.from(colors, (color, label) => (
    label && shown.has(label) ? packed(...color) : 0));
  return paint(frame, (i) => table[labels[i]]);
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

// The frame's pixel [x, y] under the pointer.
function pointed(event, frame) {
  const box = event.currentTarget.getBoundingClientRect();
  const clamp = (value, limit) => Math.min(limit - 1, Math.max(0, Math.floor(value)));
  return [clamp((event.clientX - box.left) / box.width * frame.width, frame.width),
          clamp((event.clientY - box.top) / box.height * frame.height, frame.height)];
}

// The pixel to which an arrow key leads from `cross` (null: the middle), with Shift ten pixels
// away; null for other keys.
function arrowed(event, frame, cross) {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (!(event.key in steps)) return null;
  event.preventDefault();
  const far = event.shiftKey ? 10 : 1;
  const [x, y] = cross ?? [frame.width >> 1, frame.height >> 1];
  return [x + far * steps[event.key][0], y + far * steps[event.key][1]];
}

// Puts the circle #cross around a pixel and returns it, moved into the frame.
function placeCross({ width, height }, x, y) {
  const cross = [Math.min(width - 1, Math.max(0, x)), Math.min(height - 1, Math.max(0, y))];
  const style = $("cross").style;
  style.display = "block";
  style.left = `${100 * (cross[0] + 0.5) / width}%`;
  style.top = `${100 * (cross[1] + 0.5) / height}%`;
  return cross;
}

// As wide as the column, but low enough that the sliders below stay visible.
function limitHeight(id, frame) {
  $(id).parentNode.style.maxWidth = `${75 * frame.width / frame.height}vh`;
}

// Calls does[key]() for keys that are not typed into something.
function watchKeys(does) {
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("select, input:not([type=range], [type=checkbox])");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in does)) return;
    does[event.key](event);
  });
}

// Adds a row with a checkbox for each label but 0 to #legend. The boxes, and the buttons #all and
// #none, change the set `shown` and call `changed`.
function buildLegend(names, colors, shown, changed) {
  names.forEach((name, label) => {
    if (label === 0) return;
    const row = document.createElement("label");
    row.id = "l" + label;
    row.innerHTML = '<input type="checkbox" checked><span class="swatch"></span><span></span>'
      + '<span class="pixels"></span>';
    const [box, swatch, text] = row.children;
    box.value = label;
    box.addEventListener("change", () => {
      if (box.checked) shown.add(label); else shown.delete(label);
      changed();
    });
    swatch.style.background = `rgb(${colors[label].join(",")})`;
    text.textContent = name;
    $("legend").append(row);
  });
  $("all").addEventListener("click", () => choose(names.keys(), shown, changed));
  $("none").addEventListener("click", () => choose([], shown, changed));
}

// Switches these labels on and all others off.
function choose(labels, shown, changed) {
  shown.clear();
  for (const label of labels) shown.add(label);
  for (const box of $("legend").querySelectorAll("input")) box.checked = shown.has(+box.value);
  changed();
}
