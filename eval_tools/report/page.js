// The page's data: names and colours by label, the scored labels, and facts about each frame.
const data = JSON.parse(document.getElementById("data").textContent);
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

function drawCompare() {
  const frame = state.frame;
  const split = $("split").value / 100;
  const edge = Math.round(split * frame.width);
  limitHeight("compare", frame);
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
  frame.truthLayer = labelLayer(frame, frame.truth, data.colors, shown);
  frame.foundLayer = labelLayer(frame, frame.found, data.colors, shown);
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

function setSplit(value) {
  $("split").value = value;
  drawCompare();
}

function watchPictures() {
  for (const id of ["compare", "color", "depth", "truth", "prediction", "error"]) {
    $(id).addEventListener("pointermove", (event) => {
      if (!state.frame) return;
      const at = pointed(event, state.frame);
      $("readout").setAttribute("aria-live", "off");
      readout(...at);
      if (id === "compare" && event.buttons) setSplit(100 * at[0] / state.frame.width);
    });
  }
  $("compare").addEventListener("pointerdown", (event) => {
    if (state.frame) setSplit(100 * pointed(event, state.frame)[0] / state.frame.width);
    event.currentTarget.setPointerCapture(event.pointerId);
  });
  $("compare").addEventListener("keydown", (event) => {
    const at = state.frame && arrowed(event, state.frame, state.cross);
    if (!at) return;
    // Screen readers announce pixels chosen by keyboard, not those that the pointer passes.
    $("readout").setAttribute("aria-live", "polite");
    state.cross = placeCross(state.frame, ...at);
    readout(...state.cross);
  });
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
buildLegend(data.names, data.colors, shown, updateShown);
$("wrong").addEventListener("click", () => state.frame && choose(confused(), shown, updateShown));
buildPicker();
buildEnds();
buildTables();
watchPictures();
watchKeys({
  n: () => show(state.at + 1), p: () => show(state.at - 1),
  t: () => setSplit(100), r: () => setSplit(0), b: () => setSplit(50),
  a: () => choose(data.names.keys(), shown, updateShown), o: () => choose([], shown, updateShown),
});
arrange();
show(0);
